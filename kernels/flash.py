"""Attention in one pass over the keys, in Triton: output, log-sum-exp and, if asked, row entropy.

The recurrence is FlashAttention-2's (arXiv 2307.08691, algorithm 1) in base 2, because exp2 is what
the hardware has. The entropy rides along with a third running sum.

Shape suffixes: B batch, H heads, S query tokens, K key tokens, D head dim, E value head dim,
F frames.
Names in the kernel: b_ block value, p_ pointers, i_ index, o_ offsets, m_ mask.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_HEAD_DIM = 128
PRODUCTS = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
# Stands for -inf in running maxima and masked logits: differences of it stay finite, so that
# 0 * (logit - maximum) is 0 and not NaN.
_LOWEST = tl.constexpr(-1e38)
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _fold(  # type: ignore[no-untyped-def]  # Triton types it
    b_logit, b_max, b_sum, b_spread, WITH_ENTROPY: tl.constexpr
):
    """One block of base-2 logits into the running maximum, sum and spread of each query.

    sum = sum_j w_j and spread = sum_j w_j (s_j - max) with w_j = 2^(s_j - max): when the maximum
    moves, every weight decays alike and every term of the spread moves by the difference.
    """
    b_new_max = tl.maximum(b_max, tl.max(b_logit, 1))
    b_decay = tl.exp2(b_max - b_new_max)
    b_logit -= b_new_max[:, None]
    b_weight = tl.exp2(b_logit)
    if WITH_ENTROPY:
        b_spread = b_decay * (b_spread + b_sum * (b_max - b_new_max))
        b_spread += tl.sum(b_weight * b_logit, 1)
    b_sum = b_decay * b_sum + tl.sum(b_weight, 1)
    return b_weight, b_decay, b_new_max, b_sum, b_spread


@triton.jit
def _decayed(  # type: ignore[no-untyped-def]  # Triton types it
    b_logit, b_frame_q, b_frame_k, factor
):
    """Positive logits times the factor of the distance between frames; without a frame as they are.

    Factors are at most 1, so s' = min(s, factor s).
    """
    b_distance = tl.maximum(b_frame_q, 0)[:, None] - tl.maximum(b_frame_k, 0)[None, :]
    b_factor = tl.load(factor + tl.abs(b_distance))
    m_exempt = (b_frame_q < 0)[:, None] | (b_frame_k < 0)[None, :]
    return tl.minimum(b_logit, tl.where(m_exempt, 1.0, b_factor) * b_logit)


@triton.jit
def _attend_kernel(  # type: ignore[no-untyped-def]  # Triton types it
    q,
    k,
    v,
    out,
    lse,
    entropy,
    factor,
    frame_q,
    frame_k,
    scale_log2,
    num_heads,
    num_queries,
    num_keys,
    stride_qb,
    stride_qh,
    stride_qs,
    stride_qd,
    stride_kb,
    stride_kh,
    stride_ks,
    stride_kd,
    stride_vb,
    stride_vh,
    stride_vs,
    stride_vd,
    stride_ob,
    stride_oh,
    stride_os,
    stride_od,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRODUCT: tl.constexpr,
    WITH_ENTROPY: tl.constexpr,
    WITH_DECAY: tl.constexpr,
):
    # Offsets into tensors are int64: a canvas has more elements than int32 counts.
    i_bh = tl.program_id(1).to(tl.int64)
    i_b = i_bh // num_heads
    i_h = i_bh % num_heads
    i_step = tl.full([], BLOCK_K, tl.int64)
    o_s = tl.program_id(0).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    o_k = tl.arange(0, BLOCK_K).to(tl.int64)
    o_d = tl.arange(0, BLOCK_D).to(tl.int64)
    o_e = tl.arange(0, BLOCK_E).to(tl.int64)
    m_s = o_s < num_queries
    m_d = o_d < HEAD_DIM
    m_e = o_e < VALUE_DIM

    p_q = q + i_b * stride_qb + i_h * stride_qh
    p_q += o_s[:, None] * stride_qs + o_d[None, :] * stride_qd
    p_k = k + i_b * stride_kb + i_h * stride_kh
    p_k += o_d[:, None] * stride_kd + o_k[None, :] * stride_ks
    p_v = v + i_b * stride_vb + i_h * stride_vh
    p_v += o_k[:, None] * stride_vs + o_e[None, :] * stride_vd
    b_q = tl.load(p_q, mask=m_s[:, None] & m_d[None, :], other=0.0)

    if WITH_DECAY:
        b_frame_q = tl.load(frame_q + o_s, mask=m_s, other=-1)
    b_max = tl.full([BLOCK_S], _LOWEST, tl.float32)
    b_sum = tl.zeros([BLOCK_S], tl.float32)
    b_spread = tl.zeros([BLOCK_S], tl.float32)
    b_out = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    for start in range(0, num_keys, BLOCK_K):
        m_k = start + o_k < num_keys
        b_k = tl.load(p_k, mask=m_d[:, None] & m_k[None, :], other=0.0)
        b_v = tl.load(p_v, mask=m_k[:, None] & m_e[None, :], other=0.0)
        b_logit = tl.dot(b_q.to(PRODUCT), b_k.to(PRODUCT), input_precision="ieee")
        b_logit *= scale_log2
        if WITH_DECAY:
            b_frame_k = tl.load(frame_k + start + o_k, mask=m_k, other=-1)
            b_logit = _decayed(b_logit, b_frame_q, b_frame_k, factor)
        b_logit = tl.where(m_k[None, :], b_logit, _LOWEST)
        b_weight, b_decay, b_max, b_sum, b_spread = _fold(
            b_logit, b_max, b_sum, b_spread, WITH_ENTROPY
        )
        b_out = b_decay[:, None] * b_out
        b_weight = b_weight.to(b_v.dtype).to(PRODUCT)
        b_out += tl.dot(b_weight, b_v.to(PRODUCT), input_precision="ieee")
        p_k += i_step * stride_ks
        p_v += i_step * stride_vs

    p_out = out + i_b * stride_ob + i_h * stride_oh
    p_out += o_s[:, None] * stride_os + o_e[None, :] * stride_od
    b_out = b_out / b_sum[:, None]
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_s[:, None] & m_e[None, :])
    b_log_sum = tl.log2(b_sum)
    tl.store(lse + i_bh * num_queries + o_s, (b_max + b_log_sum) * _LN_2, mask=m_s)
    if WITH_ENTROPY:
        # H = ln sum_j w_j - sum_j w_j (s_j - max) / sum_j w_j: the maximum itself cancels.
        b_entropy = (b_log_sum - b_spread / b_sum) * _LN_2
        tl.store(entropy + i_bh * num_queries + o_s, b_entropy, mask=m_s)


def attend(
    q_BHSD: Tensor,
    k_BHKD: Tensor,
    v_BHKE: Tensor,
    *,
    scale: float,
    entropy: bool = False,
    decay: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Softmax attention, its log-sum-exp and, if asked, the entropy of each row, all in nats.

    Takes float32, float16 and bfloat16 with any strides and head dims to 128; accumulates in
    float32; needs at least one key. `decay` is (factor_F, frame_q_S, frame_k_K), the arguments of
    `reference.decayed_logits`, with factors of at most 1. Raises RuntimeError if Triton cannot
    build the kernel here.
    """
    batch, num_heads, num_queries, head_dim = q_BHSD.shape
    num_keys, value_dim = v_BHKE.shape[2:]
    assert num_keys > 0, "attention over no keys has no maximum"
    assert max(head_dim, value_dim) <= MAX_HEAD_DIM, (head_dim, value_dim)
    out_BHSE = q_BHSD.new_empty((batch, num_heads, num_queries, value_dim))
    lse_BHS = q_BHSD.new_empty((batch, num_heads, num_queries), dtype=torch.float32)
    entropy_BHS = torch.empty_like(lse_BHS) if entropy else None
    tensors = (q_BHSD, k_BHKD, v_BHKE, out_BHSE)
    strides = [stride for x in tensors for stride in x.stride()]
    sizes = (num_heads, num_queries, num_keys)
    constants = _constants(q_BHSD, value_dim)
    grid = (triton.cdiv(num_queries, constants["BLOCK_S"]), batch * num_heads)
    decaying = _decaying(decay)
    launch = functools.partial(_attend_kernel[grid], *tensors, lse_BHS, entropy_BHS, *decaying)
    switches = {"WITH_ENTROPY": entropy, "WITH_DECAY": decay is not None}
    # Triton launches on the current device, whatever device the tensors are on.
    with torch.cuda.device_of(q_BHSD):
        try:
            launch(scale * math.log2(math.e), *sizes, *strides, **constants, **switches)
        except triton.TritonError as error:
            raise RuntimeError(f"Triton cannot build the attention kernel: {error}") from error
    return out_BHSE, lse_BHS, entropy_BHS


def _decaying(decay: tuple[Tensor, Tensor, Tensor] | None) -> tuple[Tensor | None, ...]:
    """Factors and frames as the kernel reads them."""
    if decay is None:
        return (None, None, None)
    factor_F, *frames = decay
    return (factor_F.float().contiguous(), *(x.int().contiguous() for x in frames))


def _constants(q_BHSD: Tensor, value_dim: int) -> dict[str, Any]:
    """What the kernel is specialised on: head dims, block sizes, the factors' dtype, the launch."""
    head_dim = q_BHSD.shape[-1]
    block_s, block_k, num_warps, num_stages = _blocks(q_BHSD.dtype, max(head_dim, value_dim))
    return {
        "HEAD_DIM": head_dim,
        "VALUE_DIM": value_dim,
        "BLOCK_S": block_s,
        "BLOCK_K": block_k,
        "BLOCK_D": _padded(head_dim),
        "BLOCK_E": _padded(value_dim),
        "PRODUCT": _product(q_BHSD),
        "num_warps": num_warps,
        "num_stages": num_stages,
    }


def _padded(head_dim: int) -> int:
    """The power of two that a block of the head dim occupies; tl.dot wants at least 16."""
    return max(16, triton.next_power_of_2(head_dim))


def _product(x: Tensor) -> tl.dtype:
    """The dtype of the factors of tl.dot: the inputs', but the interpreter lacks bfloat16."""
    return PRODUCTS[x.dtype] if x.is_cuda else tl.float32


def _blocks(dtype: torch.dtype, head_dim: int) -> tuple[int, int, int, int]:
    """Queries and keys per block, warps and pipeline stages that fit shared memory everywhere."""
    if dtype == torch.float32:
        return (64, 32, 4, 1) if head_dim > 64 else (64, 64, 4, 2)
    return (128, 64, 8, 2) if head_dim > 64 else (128, 64, 4, 3)
