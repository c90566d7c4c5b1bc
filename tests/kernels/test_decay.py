"""Attention with decayed logits equals its dense formula, in parts, in tiles and in any dtype."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.kernels import attention, decay, reference
from frieze.kernels.decay import Decay, Frames
from support.kernel_errands import attend_and_count
from tolerances import CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, HALF

DECAY = Decay(window=3, alpha=0.9, beta=0.6, gamma=1, periods=(6,))
NUM_FRAMES, PER_FRAME, NUM_TEXT = 12, 4, 3
NUM_KEYS = NUM_FRAMES * PER_FRAME + NUM_TEXT
SCALE = 0.25


def qkv(dtype: torch.dtype = torch.float64, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (2, 3, NUM_KEYS, 16)
    q, k, v = (2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return q.to(dtype), k.to(dtype), v[..., :width].to(dtype)


def frames_of(decayed: Decay = DECAY) -> Frames:
    image = torch.arange(NUM_FRAMES).repeat_interleave(PER_FRAME)
    frame_S = torch.cat((torch.full((NUM_TEXT,), -1), image)).to(torch.int16)
    return Frames(decayed.factors(NUM_FRAMES), frame_S, frame_S)


def dense(q: Tensor, k: Tensor, v: Tensor, decayed: Decay = DECAY) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and entropy, pair by pair."""
    logits = SCALE * q.double() @ k.double().mT
    frame = frames_of().q_S.tolist()
    for i, a in enumerate(frame):
        for j, b in enumerate(frame):
            if min(a, b) >= 0:
                positive = logits[:, :, i, j].clamp(min=0)
                logits[:, :, i, j] += (_factor(decayed, abs(a - b)) - 1) * positive
    weight = logits.softmax(-1)
    entropy = -torch.xlogy(weight, weight).sum(-1)
    return weight @ v.double(), logits.logsumexp(-1), entropy


def _factor(decayed: Decay, distance: int) -> float:
    if distance <= decayed.window / 2:
        return 1.0
    for m in range(1, 200):
        if any(abs(distance - m * period) <= decayed.gamma for period in decayed.periods):
            return decayed.beta
    return decayed.alpha


def test_factors_by_distance() -> None:
    assert DECAY.factors(14).tolist() == [
        *(1.0, 1.0, 0.9, 0.9, 0.9),
        *(0.6, 0.6, 0.6, 0.9, 0.9, 0.9),
        *(0.6, 0.6, 0.6),
    ]
    assert Decay(4, 0.9).factors(5).tolist() == [1, 1, 1, 0.9, 0.9]


@settings(deadline=None, max_examples=60)
@given(
    window=st.floats(0, 40),
    gamma=st.floats(0, 6),
    periods=st.lists(st.floats(0.5, 60), max_size=3),
    distance=st.integers(0, 90),
)
def test_factors_match_a_search_over_multiples(
    window: float, gamma: float, periods: list[float], distance: int
) -> None:
    decayed = Decay(window, 0.9, 0.6, gamma, tuple(periods))
    assert decayed.factor(distance) == _factor(decayed, distance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, EXACT_FLOAT64), (torch.float32, EXACT_FLOAT32), (torch.bfloat16, HALF)],
    ids=["float64", "float32", "bfloat16"],
)
@pytest.mark.parametrize("keys", [1024, 7])
def test_tiles_match_the_dense_formula(
    monkeypatch: pytest.MonkeyPatch, keys: int, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr(decay, "TILE_KEYS", keys)
    monkeypatch.setattr(decay, "TILE_ELEMENTS", 500)
    q, k, v = qkv(dtype)
    out, lse, entropy = dense(q, k, v)
    found = decay.attend(q, k, v, frames_of(), scale=SCALE)
    mean = decay.mean_logit(q, k, frames_of(), scale=SCALE)
    assert found.out_BHSD.dtype == dtype
    assert found.lse_BHS.dtype == mean.out_BHSD.dtype == reference.wide(dtype)
    assert (found.out_BHSD - out).abs().max() <= tolerance * v.abs().max()
    assert (found.lse_BHS - lse).abs().max() <= tolerance * lse.abs().max()
    assert (mean.lse_BHS - mean.out_BHSD[..., 0] - entropy).abs().max() <= tolerance * lse.max()


def test_control_without_decay_or_with_negative_logits_decayed_it_is_another() -> None:
    q, k, v = qkv()
    out = decay.attend(q, k, v, frames_of(), scale=SCALE).out_BHSD
    assert (out - attention.attend(q, k, v, scale=SCALE).out_BHSD).abs().max() > CONTROL
    frames = frames_of()
    distance = (frames.q_S[:, None] - frames.k_K[None]).abs().long()
    both_signs = (SCALE * q @ k.mT) * frames.factor_F[distance.clamp(max=NUM_FRAMES - 1)]
    assert (out - both_signs.softmax(-1) @ v).abs().max() > CONTROL


def test_the_reference_is_the_dense_formula() -> None:
    q, k, v = qkv()
    frames = frames_of()
    logits = reference.logits(q, k, SCALE)
    decayed = reference.decayed_logits(logits, frames.factor_F, frames.q_S, frames.k_K)
    out, lse = reference.weigh(decayed, v)
    expected, expected_lse, _ = dense(q, k, v)
    assert (out - expected).abs().max() <= EXACT_FLOAT64
    assert (lse - expected_lse).abs().max() <= EXACT_FLOAT64


def test_partials_over_disjoint_keys_merge() -> None:
    q, k, v = qkv(width=9)
    whole = frames_of()
    for function in (
        lambda a, b, f: decay.attend(q, k[:, :, a:b], v[:, :, a:b], f, scale=SCALE),
        lambda a, b, f: decay.mean_logit(q, k[:, :, a:b], f, scale=SCALE),
    ):
        edges = [(0, 5), (5, 5), (5, 30), (30, NUM_KEYS)]
        parts = [
            function(a, b, Frames(whole.factor_F, whole.q_S, whole.k_K[a:b])) for a, b in edges
        ]
        merged, once = functools.reduce(operator.add, parts), function(0, NUM_KEYS, whole)
        assert (merged.out_BHSD - once.out_BHSD).abs().max() <= EXACT_FLOAT64
        assert (merged.lse_BHS - once.lse_BHS).abs().max() <= EXACT_FLOAT64


@pytest.mark.parametrize("exempt", [False, True], ids=["alpha of one", "no frames"])
def test_where_nothing_decays_it_is_plain_attention(exempt: bool) -> None:
    q, k, v = qkv()
    frames = frames_of(DECAY if exempt else Decay(3, 1.0))
    if exempt:
        frames = Frames(frames.factor_F, torch.full_like(frames.q_S, -1), frames.k_K)
    found = decay.attend(q, k, v, frames, scale=SCALE)
    plain = attention.attend(q, k, v, scale=SCALE)
    assert (found.out_BHSD - plain.out_BHSD).abs().max() <= EXACT_FLOAT64


def test_the_default_scale_is_that_of_attention() -> None:
    q, k, v = qkv()
    a, b = (decay.attend(q, k, v, frames_of(), scale=scale) for scale in (None, 16**-0.5))
    assert torch.equal(a.out_BHSD, b.out_BHSD)


def test_no_more_than_a_tile_of_logits_is_held(
    monkeypatch: pytest.MonkeyPatch, allocations: Callable[[], Any]
) -> None:
    monkeypatch.setattr(decay, "TILE_KEYS", 64)
    monkeypatch.setattr(decay, "TILE_ELEMENTS", 1 << 14)
    q = torch.randn(1, 2, 1024, 4)
    frame_S = torch.arange(16).repeat_interleave(64)
    frames = Frames(DECAY.factors(16), frame_S, frame_S)
    with allocations() as watched:
        decay.attend(q, q, q, frames)
        decay.mean_logit(q, q, frames)
    assert max(count for _, count in watched.seen) <= 1 << 14
    assert 1024 * 1024 > 16 * (1 << 14)  # what all logits of one head would be


def test_meta_tensors_have_its_shapes(poisoned_ops: None) -> None:
    q, k, v = (x.to("meta") for x in qkv(torch.bfloat16, width=9))
    real = decay.attend(*qkv(torch.bfloat16, width=9), frames_of())
    frames = Frames(*(x.to("meta") for x in vars(frames_of()).values()))
    found = decay.attend(q, k, v, frames)
    for name in ("out_BHSD", "lse_BHS"):
        a, b = getattr(found, name), getattr(real, name)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 1.1}, "want 0 < beta <= alpha <= 1"),
        ({"alpha": 0.0}, "want 0 < beta <= alpha <= 1"),
        ({"beta": 0.95, "periods": (4.0,)}, "want 0 < beta <= alpha <= 1"),
        ({"window": -1.0}, "window is -1.0 frames"),
        ({"window": float("nan")}, "window is nan frames"),
        ({"gamma": float("inf")}, "gamma is inf frames"),
        ({"beta": 0.5, "periods": (0.0,)}, "want more than 0 frames each"),
    ],
)
def test_a_decay_that_makes_no_sense_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Decay(**{"window": 4.0, "alpha": 0.9, **options})


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_fused_kernel_is_used_where_there_is_one(
    interpreted: Callable[..., Any], device: str
) -> None:
    q, k, v = (x.to(device) for x in qkv(torch.float32))
    frames = Frames(*(x.to(device) for x in vars(frames_of()).values()))
    call = interpreted if device == "cpu" else lambda function, *args: function(*args)
    found, mean, calls = call(attend_and_count, q, k, v, frames, SCALE)
    out, lse, entropy = (x.to(device) for x in dense(q.cpu(), k.cpu(), v.cpu()))
    assert calls == 2
    assert (found.out_BHSD - out).abs().max() <= EXACT_FLOAT32 * v.abs().max()
    assert (mean.lse_BHS - mean.out_BHSD[..., 0] - entropy).abs().max() <= (
        EXACT_FLOAT32 * lse.abs().max()
    )


def test_frames_that_do_not_fit_are_refused() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match="one for each token"):
        decay.attend(q, k[:, :, 1:], v[:, :, 1:], frames_of())
