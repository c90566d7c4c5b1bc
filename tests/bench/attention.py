"""Every attention backend of this machine beside torch's own scaled_dot_product_attention.

Prints a Markdown table of ratios measured in one run. A backend whose output or log-sum-exp is
wrong gets no number, and the script fails.
"""

from __future__ import annotations

import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels import reference
from frieze.kernels.attention import attend, backends
from frieze.kernels.backends import TABLE

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tolerances import EXACT_FLOAT32, HALF

REPEATS = 5
CHECKED_QUERIES = 64
ON_CPU = [
    ((1, 8, 1024, 64), torch.float32),
    ((1, 8, 1024, 128), torch.bfloat16),
    ((1, 1, 2048, 512), torch.float32),
]
ON_CUDA = [
    ((1, 24, 4608, 128), torch.bfloat16),
    ((1, 24, 16896, 128), torch.bfloat16),
    ((1, 10, 4096, 64), torch.float16),
    ((1, 24, 4608, 128), torch.float32),
    ((1, 1, 16384, 512), torch.float32),
]


def seconds(function: Callable[[], object], device: str) -> float:
    """The median of a few calls after one to warm up."""

    def once() -> float:
        began = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return statistics.median(once() for _ in range(REPEATS))


def error(name: str, q: Tensor, k: Tensor, v: Tensor) -> float:
    """The largest error of output or log-sum-exp, each relative to its largest value."""
    step = max(1, q.shape[2] // CHECKED_QUERIES)
    wide = (x.double() for x in (q[:, :, ::step], k, v))
    out, lse = reference.attend(*wide, scale=q.shape[-1] ** -0.5)
    partial = attend(q, k, v, backend=name)
    out_error = (partial.out_BHSD[:, :, ::step] - out).abs().max() / out.abs().max()
    lse_error = (partial.lse_BHS[:, :, ::step] - lse).abs().max() / lse.abs().max()
    return max(out_error.item(), lse_error.item())


def row(name: str, q: Tensor, k: Tensor, v: Tensor, stock: float) -> tuple[str, bool]:
    """One line of the table and whether it is right."""
    batch, heads, tokens, head_dim = q.shape
    tolerance = EXACT_FLOAT32 if q.dtype == torch.float32 else HALF
    title = (
        f"| {batch}x{heads}x{tokens}x{head_dim} {str(q.dtype).removeprefix('torch.')} | {name} |"
    )
    found = error(name, q, k, v)
    if not found <= tolerance:
        return f"{title} wrong by {found:.1e} | | |", False
    spent = seconds(lambda: attend(q, k, v, backend=name), q.device.type)
    flops = 4 * batch * heads * tokens**2 * head_dim / spent
    return f"{title} {1e3 * spent:.2f} | {spent / stock:.2f} | {flops / 1e12:.3g} |", True


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    hardware = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    print(f"torch {torch.__version__} on {hardware or platform.machine()}")
    print("\n| B x H x S x D | backend | ms | times torch's own | TFLOP/s |")
    print("|---|---|---|---|---|")
    names = [report.name for report in backends() if report.available]
    right = True
    for shape, dtype in ON_CUDA if device == "cuda" else ON_CPU:
        generator = torch.Generator(device).manual_seed(math.prod(shape))
        q, k, v = (
            torch.randn(shape, dtype=dtype, device=device, generator=generator) for _ in range(3)
        )
        stock = seconds(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v), device)
        for name in names:
            if TABLE[name].refusal(q, k, v) is None:
                line, is_right = row(name, q, k, v, stock)
                print(line, flush=True)
                right &= is_right
    return 0 if right else 1


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
