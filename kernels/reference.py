"""Every op in plain torch: the specification that the kernels are held to. Read it first.

Shape suffixes: B batch, H heads, S query tokens, K key tokens, D head dim, E value head dim,
F frames, C channels, G groups, N elements of a group.

Arithmetic is float32 or wider, whatever the inputs are; results return to the inputs' dtype,
log-sum-exps, entropies and moments stay wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to accumulate in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def logits(q_BHSD: Tensor, k_BHKD: Tensor, scale: float) -> Tensor:
    """s_ij = scale <q_i, k_j>."""
    accumulate = wide(q_BHSD.dtype)
    return (q_BHSD.to(accumulate) * scale) @ k_BHKD.to(accumulate).mT


def attend(
    q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp: out_i = sum_j exp(s_ij - lse_i) v_j.

    Over no keys at all the answer is (0, -inf), the neutral element of `merge`.
    """
    out_BHSE, lse_BHS = weigh(logits(q_BHSD, k_BHKD, scale), v_BHKE)
    return out_BHSE.to(v_BHKE.dtype), lse_BHS


def weigh(logits_BHSK: Tensor, v_BHKE: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the values by the softmax of the logits, still wide, and the log-sum-exp.

    The logits are overwritten, unless their gradient is wanted.
    """
    lse_BHS = logits_BHSK.logsumexp(-1)
    shift_BHS1 = finite(lse_BHS)[..., None]
    if logits_BHSK.requires_grad:
        weight_BHSK = (logits_BHSK - shift_BHS1).exp()
    else:
        weight_BHSK = logits_BHSK.sub_(shift_BHS1).exp_()
    return weight_BHSK @ v_BHKE.to(weight_BHSK.dtype), lse_BHS


def decayed_logits(
    logits_BHSK: Tensor, factor_F: Tensor, frame_q_S: Tensor, frame_k_K: Tensor
) -> Tensor:
    """s'_ij = factor[|frame_i - frame_j|] s_ij where s_ij > 0 and both have a frame, else s_ij.

    A token of frame -1 has none.  UltraViCo, arXiv 2511.20123.
    """
    frame_q_S1, frame_1K = frame_q_S.long()[:, None], frame_k_K.long()[None]
    distance_SK = (frame_q_S1.clamp(min=0) - frame_1K.clamp(min=0)).abs()
    factor_SK = factor_F.to(logits_BHSK.dtype)[distance_SK]
    factor_SK = factor_SK.masked_fill((frame_q_S1 < 0) | (frame_1K < 0), 1.0)
    return torch.where(logits_BHSK > 0, logits_BHSK * factor_SK, logits_BHSK)


def finite(lse_BHS: Tensor) -> Tensor:
    """The log-sum-exp with -inf (no keys) replaced by 0, so that -inf - lse is not NaN."""
    return lse_BHS.masked_fill(lse_BHS == -torch.inf, 0.0)


def merge(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over a union of disjoint keys from the attention over each part.

    With m = max_i lse_i and w_i = exp(lse_i - m): out = sum_i w_i out_i / sum_i w_i and
    lse = m + log sum_i w_i (FlashAttention-2, arXiv 2307.08691, section 2.3).
    """
    accumulate = wide(outs[0].dtype)
    lse_PBHS = torch.stack([lse.to(accumulate) for lse in lses])
    lse_BHS = lse_PBHS.logsumexp(0)
    weight_PBHS = (lse_PBHS - finite(lse_BHS)).exp()
    out_PBHSE = torch.stack([out.to(accumulate) for out in outs])
    return (weight_PBHS[..., None] * out_PBHSE).sum(0), lse_BHS


def entropy(q_BHSD: Tensor, k_BHKD: Tensor, *, scale: float) -> Tensor:
    """Shannon entropy (nats) of each query's softmax: H_i = -sum_j p_ij ln p_ij."""
    log_weight_BHSK = logits(q_BHSD, k_BHKD, scale).log_softmax(-1)
    return -(log_weight_BHSK.exp() * log_weight_BHSK).sum(-1)


def moments(x: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Element count, mean and centred sum of squares of each group of channels, [B, G] each."""
    x_BGN = x.to(wide(x.dtype)).reshape(x.shape[0], num_groups, -1)
    mean_BG = x_BGN.mean(-1)
    m2_BG = (x_BGN - mean_BG[..., None]).square().sum(-1)
    return torch.full_like(mean_BG, x_BGN.shape[-1]), mean_BG, m2_BG


def group_norm(
    x: Tensor, num_groups: int, weight_C: Tensor | None, bias_C: Tensor | None, eps: float
) -> Tensor:
    """Each group of channels brought to mean 0 and (biased) variance 1, then scaled and shifted.

    Wu and He, Group Normalization, arXiv 1803.08494, equation 7.
    """
    count_BG, mean_BG, m2_BG = moments(x, num_groups)
    x_BGN = x.to(mean_BG.dtype).reshape(x.shape[0], num_groups, -1)
    scaled_BGN = (x_BGN - mean_BG[..., None]) * (m2_BG / count_BG + eps).rsqrt()[..., None]
    y = scaled_BGN.reshape(x.shape)
    per_channel = (1, -1) + (1,) * (x.dim() - 2)
    if weight_C is not None:
        y = y * weight_C.to(y.dtype).reshape(per_channel)
    if bias_C is not None:
        y = y + bias_C.to(y.dtype).reshape(per_channel)
    return y.to(x.dtype)
