"""Attention whose logits decay with the distance between frames, over some of the keys.

Of a clip longer than the model was trained on, attention spreads over all frames: the clip repeats
itself and blurs.  Positive logits between frames far apart are therefore made smaller (UltraViCo,
arXiv 2511.20123).  A factor for each pair and sign is no scale of q, so no fused kernel takes it.

Shape suffixes: B batch, H heads, S query tokens, K key tokens, D head dim, E value head dim,
F frames.
"""

from __future__ import annotations

import functools
import logging
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import reference
from .attention import AttentionPartial
from .backends import TABLE

_log = logging.getLogger("frieze.kernels")

# Logits held at once, in tiles of at most so many keys.
TILE_ELEMENTS = 1 << 22
TILE_KEYS = 1024


@dataclass(frozen=True)
class Decay:
    """Factors of positive logits by the distance between two frames, in frames of tokens.

    1 up to half of `window` (the training length); `beta` within `gamma` of a multiple of one of
    `periods`, where a model that repeats would repeat; `alpha` elsewhere.  ValueError unless
    0 < beta <= alpha <= 1 and lengths are finite and not negative, periods positive.
    """

    window: float
    alpha: float
    beta: float = 1.0
    gamma: float = 0.0
    periods: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        beta = self.beta if self.periods else self.alpha  # without periods beta is not used
        if not 0 < beta <= self.alpha <= 1:
            raise ValueError(f"alpha {self.alpha}, beta {self.beta}: want 0 < beta <= alpha <= 1")
        for name, length in (("window", self.window), ("gamma", self.gamma)):
            if not 0 <= length < math.inf:
                raise ValueError(f"{name} is {length} frames; want 0 or more")
        if not all(0 < period < math.inf for period in self.periods):
            raise ValueError(f"periods {self.periods}: want more than 0 frames each")

    def factor(self, distance: int) -> float:
        """The factor of positive logits between frames so far apart."""
        if distance <= self.window / 2:
            return 1.0
        return self.beta if any(self._is_near(distance, p) for p in self.periods) else self.alpha

    def factors(self, num_frames: int) -> Tensor:
        """factor_F for distances of 0 to num_frames - 1 frames, float64."""
        return torch.tensor([self.factor(d) for d in range(num_frames)], dtype=torch.float64)

    def _is_near(self, distance: int, period: float) -> bool:
        """Within gamma of m * period for a whole m >= 1?"""
        multiple = max(1, round(distance / period))
        return abs(distance - multiple * period) <= self.gamma


@dataclass(frozen=True)
class Frames:
    """What decays for these queries and keys: factor by distance, and the frame of every token.

    `factor_F` are `Decay.factors` of as many frames as there are; frames are integers, -1 for
    tokens that are exempt.
    """

    factor_F: Tensor
    q_S: Tensor
    k_K: Tensor


def attend(
    q_BHSD: Tensor,
    k_BHKD: Tensor,
    v_BHKE: Tensor,
    frames: Frames,
    *,
    scale: float | None = None,
) -> AttentionPartial:
    """Softmax attention by the decayed logits s', mergeable like any other over disjoint keys.

    `scale` multiplies the logits and defaults to D ** -0.5.  Holds at most TILE_ELEMENTS logits at
    a time (never less than one query's of one tile).  ValueError if the frames do not fit.
    """
    _check(q_BHSD, k_BHKD, frames)
    if fused := _fused(q_BHSD, k_BHKD, v_BHKE, frames, scale):
        return AttentionPartial(*fused[:2])

    def tile(logits_BHSK: Tensor, v: Tensor) -> AttentionPartial:
        return AttentionPartial(*reference.weigh(logits_BHSK, v))

    partial = _tiled(tile, q_BHSD, k_BHKD, v_BHKE, frames, scale)
    return AttentionPartial(partial.out_BHSD.to(v_BHKE.dtype), partial.lse_BHS)


def mean_logit(
    q_BHSD: Tensor, k_BHKD: Tensor, frames: Frames, *, scale: float | None = None
) -> AttentionPartial:
    """E[s'] of each query as `out` [B, H, S, 1], wide: lse - E[s'] is the entropy of its row."""
    _check(q_BHSD, k_BHKD, frames)
    if fused := _fused(q_BHSD, k_BHKD, k_BHKD[..., :1], frames, scale, entropy=True):
        _, lse_BHS, entropy_BHS = fused
        assert entropy_BHS is not None
        return AttentionPartial((lse_BHS - entropy_BHS)[..., None], lse_BHS)

    def tile(logits_BHSK: Tensor, _: Tensor) -> AttentionPartial:
        lse_BHS = logits_BHSK.logsumexp(-1)
        weight_BHSK = (logits_BHSK - reference.finite(lse_BHS)[..., None]).exp_()
        return AttentionPartial(weight_BHSK.mul_(logits_BHSK).sum(-1, keepdim=True), lse_BHS)

    return _tiled(tile, q_BHSD, k_BHKD, k_BHKD[..., :1], frames, scale)


def _check(q_BHSD: Tensor, k_BHKD: Tensor, frames: Frames) -> None:
    if frames.q_S.shape != q_BHSD.shape[2:3] or frames.k_K.shape != k_BHKD.shape[2:3]:
        raise ValueError(
            f"frames {tuple(frames.q_S.shape)} and {tuple(frames.k_K.shape)} for q "
            f"{tuple(q_BHSD.shape)} and k {tuple(k_BHKD.shape)}: want one for each token"
        )


def _fused(
    q_BHSD: Tensor,
    k_BHKD: Tensor,
    v_BHKE: Tensor,
    frames: Frames,
    scale: float | None,
    *,
    entropy: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """By the Triton kernel; None where this machine or these tensors cannot have it."""
    triton = TABLE["triton"]
    if q_BHSD.is_meta or not (q_BHSD.numel() and k_BHKD.numel()):
        return None
    if triton.missing() or triton.refusal(q_BHSD, k_BHKD, v_BHKE):
        return None
    from . import flash

    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    decay = (frames.factor_F.to(q_BHSD.device), frames.q_S, frames.k_K)
    try:
        return flash.attend(q_BHSD, k_BHKD, v_BHKE, scale=scale, entropy=entropy, decay=decay)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _warn_once(str(error).splitlines()[0])
        return None


@functools.cache
def _warn_once(reason: str) -> None:
    _log.warning("decayed attention by triton failed: %s; using another", reason)


def _tiled(
    tile: Callable[[Tensor, Tensor], AttentionPartial],
    q_BHSD: Tensor,
    k_BHKD: Tensor,
    v_BHKE: Tensor,
    frames: Frames,
    scale: float | None,
) -> AttentionPartial:
    """`tile` of the decayed logits of some queries and keys and of their values, merged."""
    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    factor_F = frames.factor_F.to(q_BHSD.device)

    def run(q: Tensor, frame_q: Tensor) -> AttentionPartial:
        partials = (
            tile(
                reference.decayed_logits(reference.logits(q, k, scale), factor_F, frame_q, frame_k),
                v,
            )
            for k, v, frame_k in zip(
                *(x.split(TILE_KEYS, 2) for x in (k_BHKD, v_BHKE)),
                frames.k_K.split(TILE_KEYS),
                strict=True,
            )
        )
        return functools.reduce(operator.add, partials)

    num_rows = q_BHSD.shape[:2].numel() * min(TILE_KEYS, k_BHKD.shape[2])
    length = max(1, TILE_ELEMENTS // max(1, num_rows))
    runs = zip(q_BHSD.split(length, 2), frames.q_S.split(length), strict=True)
    if q_BHSD.is_meta:  # no run of queries holds more than the first
        first = run(*next(runs))
        out, lse = first.out_BHSD, first.lse_BHS
        shape = q_BHSD.shape[:3]
        return AttentionPartial(out.new_empty((*shape, out.shape[3])), lse.new_empty(shape))
    done = [run(*part) for part in runs]
    return AttentionPartial(
        torch.cat([partial.out_BHSD for partial in done], dim=2),
        torch.cat([partial.lse_BHS for partial in done], dim=2),
    )
