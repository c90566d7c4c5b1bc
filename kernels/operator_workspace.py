"""What torch's operators hold inside, beyond their arguments and results, while they run.

No tensor shows these bytes.  Of the processor's libraries they are formulas that agree with
torch's own count of its allocations; of CUDA's they are upper bounds, for the algorithm is chosen
at run time.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import torch
from torch import Tensor

from .meta_tensors import device_type

HALF = (torch.float16, torch.bfloat16)
# Torch gives oneDNN convolutions of more than this many inputs.
SMALL_INPUT = 20480
# Queries and keys of one tile of the CPU's flash attention, by the least number of queries.
QUERY_TILES = ((768, 256), (192, 64), (0, 32))
KEY_TILE = 512


def workspace(op: Any, args: tuple[Any, ...], output: Any) -> int:
    """Bytes that this call of an aten operator holds and gives back before it returns."""
    if op is torch.ops.aten.convolution.default:
        x, weight = args[:2]
        if device_type(x) == "cuda":
            return _cudnn_convolution(x, weight, output)
        return _cpu_convolution(x, weight, output)
    if op is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
        return _cpu_flash(*args[:2])
    return 0


def _cpu_convolution(x: Tensor, weight: Tensor, output: Tensor) -> int:
    """oneDNN's blocked copies of input, weights and output; without it the windows as columns."""
    copy = 0 if x.is_contiguous() else _bytes(x)
    points = prod(weight.shape[2:])
    if not _is_onednn(x, points):
        columns = weight[0].numel() * output[0, 0].numel() * x.element_size()
        return copy + (columns if points > 1 else 0)
    out, narrow = _bytes(output), x.dtype in HALF
    blocked_x = _bytes(x) * _blocked(x.shape[1]) // x.shape[1]
    blocked_out = out * _blocked(output.shape[1]) // output.shape[1]
    if x.shape[1] < _channel_block() and not narrow:
        blocked_x = 0
    inside = blocked_x if narrow and points == 1 else 0
    during = inside + blocked_x + _bytes(weight) + blocked_out - out
    after = blocked_out + (out if x.dtype == torch.float16 else 0)
    return copy + max(during, after)


@functools.cache
def _has_avx512() -> bool:
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def _channel_block() -> int:
    """oneDNN keeps channels in blocks of one vector of float32."""
    return 16 if _has_avx512() else 8


def _is_onednn(x: Tensor, points: int) -> bool:
    if x.dtype in HALF:
        return _has_avx512()
    if x.dtype != torch.float32 or x.ndim == 5 or x.numel() <= SMALL_INPUT:
        return False
    return points > 1 or torch.get_num_threads() > 1


def _blocked(channels: int) -> int:
    return -(-channels // _channel_block()) * _channel_block()


def _cudnn_convolution(x: Tensor, weight: Tensor, output: Tensor) -> int:
    """cuDNN's tensor-core kernels want channels last: a copy of each side, and the weights."""
    if prod(weight.shape[2:]) == 1:
        return 0
    return _bytes(x) + _bytes(output) + _bytes(weight)


def _cpu_flash(q_BHSD: Tensor, k_BHKD: Tensor) -> int:
    """One tile of logits, running sums and output in float32 for every thread."""
    num_queries, head_dim = q_BHSD.shape[2:]
    rows = next(tile for least, tile in QUERY_TILES if num_queries >= least)
    rows, columns = min(rows, num_queries), min(KEY_TILE, k_BHKD.shape[2])
    wide = max(4, q_BHSD.element_size()) * rows * (columns + 2 + head_dim)
    narrow = 2 * rows * columns if q_BHSD.dtype in HALF else 0
    return torch.get_num_threads() * (wide + narrow)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
