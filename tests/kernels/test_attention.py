"""Partials merge exactly; entropy comes for free; the choice of a backend is safe and aloud."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import operator
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.kernels import reference
from frieze.kernels.attention import AttentionPartial, attend, backends, choose, entropy, mean_logit
from frieze.kernels.backends import TABLE, Backend
from tolerances import CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, HALF

NUM_KEYS = 37


def qkv(num_queries: int = 9, num_keys: int = NUM_KEYS, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(2, 3, tokens, 16, dtype=torch.float64, generator=generator)
        for tokens in (num_queries, num_keys, num_keys)
    )


def split(q: Tensor, k: Tensor, v: Tensor, cuts: Sequence[int]) -> list[AttentionPartial]:
    edges = [0, *sorted(cuts), k.shape[2]]
    pairs = itertools.pairwise(edges)
    return [attend(q, k[:, :, a:b], v[:, :, a:b]) for a, b in pairs]


def difference(a: AttentionPartial, b: AttentionPartial) -> float:
    out = (a.out_BHSD - b.out_BHSD).abs().max()
    return max(out.item(), (a.lse_BHS - b.lse_BHS).abs().max().item())


cuts = st.lists(st.integers(0, NUM_KEYS), max_size=6)


@settings(deadline=None, max_examples=60)
@given(cuts=cuts, order=st.randoms(use_true_random=False), seed=st.integers(0, 99))
def test_partials_of_any_split_in_any_order_merge_to_one_call(
    cuts: list[int], order: object, seed: int
) -> None:
    q, k, v = qkv(seed=seed)
    parts = split(q, k, v, cuts)
    order.shuffle(parts)
    assert difference(functools.reduce(operator.add, parts), attend(q, k, v)) <= EXACT_FLOAT64


def test_merging_without_weights_is_wrong() -> None:
    q, k, v = qkv()
    parts = split(q, k, v, [10, 30])
    mean = sum(part.out_BHSD for part in parts) / 3
    assert (mean - attend(q, k, v).out_BHSD).abs().max() > CONTROL


@settings(deadline=None, max_examples=30)
@given(a=st.integers(0, NUM_KEYS), b=st.integers(0, NUM_KEYS))
def test_merging_is_associative_and_commutative(a: int, b: int) -> None:
    x, y, z = split(*qkv(), [a, b])
    assert difference((x + y) + z, x + (y + z)) <= EXACT_FLOAT64
    assert difference(x + y, y + x) == 0


def test_merging_matches_the_reference() -> None:
    parts = split(*qkv(), [5, 5, 20])
    out, lse = reference.merge([p.out_BHSD for p in parts], [p.lse_BHS for p in parts])
    merged = functools.reduce(operator.add, parts)
    assert difference(merged, AttentionPartial(out, lse)) <= EXACT_FLOAT64


def test_a_part_without_keys_changes_nothing_and_two_make_no_nan() -> None:
    q, k, v = qkv()
    whole, nothing = attend(q, k, v), attend(q, k[:, :, :0], v[:, :, :0])
    assert difference(whole + nothing, whole) == 0
    assert difference(nothing + whole, whole) == 0
    assert ((nothing + nothing).out_BHSD == 0).all()
    assert ((nothing + nothing).lse_BHS == -torch.inf).all()
    out, lse = reference.merge([nothing.out_BHSD] * 2, [nothing.lse_BHS] * 2)
    assert (out == 0).all()
    assert (lse == -torch.inf).all()


def test_far_apart_partials_neither_overflow_nor_vanish() -> None:
    out = torch.ones(1, 1, 2, 4)
    low = AttentionPartial(out, torch.tensor([[[-1e4, -1e30]]]))
    high = AttentionPartial(2 * out, torch.tensor([[[1e4, 1e30]]]))
    assert difference(low + high, high) == 0


def test_sixty_four_bfloat16_partials_do_not_drift() -> None:
    """Accumulating in float32 stays at one rounding's error; in bfloat16 it would not."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, tokens, 64, generator=generator).bfloat16()
        for tokens in (256, 2048, 2048)
    )
    truth = attend(q.double(), k.double(), v.double()).out_BHSD
    parts = split(q, k, v, range(32, 2048, 32))
    assert len(parts) == 64
    assert parts[0].out_BHSD.dtype == torch.bfloat16

    def narrow(a: AttentionPartial, b: AttentionPartial) -> AttentionPartial:
        merged = a + b
        return AttentionPartial(merged.out_BHSD.bfloat16(), merged.lse_BHS)

    def error(partial: AttentionPartial) -> float:
        return ((partial.out_BHSD - truth).norm() / truth.norm()).item()

    once = error(attend(q, k, v))
    merged = functools.reduce(operator.add, parts)
    assert merged.out_BHSD.dtype == torch.float32
    assert error(merged) <= 1.2 * once
    assert error(functools.reduce(narrow, parts)) > 3 * once


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, EXACT_FLOAT64), (torch.float32, EXACT_FLOAT32), (torch.bfloat16, HALF)],
    ids=["float64", "float32", "bfloat16"],
)
@pytest.mark.parametrize("scale", [None, 0.7])
def test_entropy_matches_dense_softmax(
    dtype: torch.dtype, tolerance: float, scale: float | None
) -> None:
    q, k, v = (x.to(dtype) for x in qkv())
    truth = reference.entropy(q.double(), k.double(), scale=scale or 0.25)
    found = entropy(q, k, attend(q, k, v, scale=scale), scale=scale)
    assert found.dtype == reference.wide(dtype)
    assert (found - truth).abs().max() <= tolerance * math.log(NUM_KEYS)


@torch.enable_grad()
def test_gradients_of_merged_partials_are_those_of_one_call() -> None:
    """Also through the log-sum-exps, by which parts are weighed; other backends' have none."""

    def gradients(backend: str | None) -> list[Tensor]:
        q, k, v = (x.requires_grad_() for x in qkv())
        ends = itertools.pairwise((0, 5, 20, NUM_KEYS))
        parts = (attend(q, k[:, :, a:b], v[:, :, a:b], backend=backend) for a, b in ends)
        functools.reduce(operator.add, parts).out_BHSD.square().sum().backward()
        return [x.grad for x in (q, k, v) if x.grad is not None]

    q, k, v = (x.requires_grad_() for x in qkv())
    (torch.softmax(q @ k.mT / 4, -1) @ v).square().sum().backward()
    true = [x.grad for x in (q, k, v) if x.grad is not None]
    for found, wanted in zip(gradients(None), true, strict=True):
        assert float((found - wanted).abs().max()) < EXACT_FLOAT64
    wrong = gradients("cpu_flash")[0]  # the control
    assert float((wrong - true[0]).abs().max()) > CONTROL


def test_entropy_of_equal_keys_is_the_logarithm_of_their_number() -> None:
    q, k, v = qkv()
    k = k[:, :, :1].expand_as(k)
    assert (entropy(q, k, attend(q, k, v)) - math.log(NUM_KEYS)).abs().max() <= EXACT_FLOAT64


def test_entropy_merges_over_parts_of_the_keys() -> None:
    q, k, _ = qkv()
    merged = functools.reduce(operator.add, split(q, k, k, [11, 12]))
    found = merged.lse_BHS - mean_logit(q, merged)
    assert (found - reference.entropy(q, k, scale=0.25)).abs().max() <= EXACT_FLOAT64


def test_block_mass_is_attention_to_one_hot_values() -> None:
    q, k, _ = qkv()
    block = torch.arange(NUM_KEYS) // 8
    one_hot = torch.nn.functional.one_hot(block).double().expand(2, 3, -1, -1)
    weight = (q @ k.mT * 0.25).softmax(-1)
    mass = attend(q, k, one_hot).out_BHSD
    assert (mass - weight @ one_hot).abs().max() <= EXACT_FLOAT64


@pytest.mark.parametrize(
    ("shapes", "dtypes"),
    [
        (((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 6, 8)), None),
        (((1, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)), None),
        (((1, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)), None),
        (((1, 2, 5, 8), (1, 2, 7, 16), (1, 2, 7, 16)), None),
        (((2, 5, 8), (2, 7, 8), (2, 7, 8)), None),
        (((1, 2, 5, 8),) * 3, (torch.float32, torch.float64, torch.float32)),
    ],
    ids=["tokens", "heads", "batch", "head_dim", "three_dims", "dtype"],
)
def test_tensors_that_do_not_fit_together_are_refused(
    shapes: tuple[tuple[int, ...], ...], dtypes: tuple[torch.dtype, ...] | None
) -> None:
    """Torch's own ops read beyond the end of some of these."""
    dtypes = dtypes or (torch.float32,) * 3
    tensors = [torch.zeros(shape, dtype=d) for shape, d in zip(shapes, dtypes, strict=True)]
    with pytest.raises(ValueError, match="attention over"):
        attend(*tensors)


def test_a_forced_backend_that_cannot_says_why() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match=r"no attention backend 'flesh'; there are cpu_flash, "):
        attend(q, k, v, backend="flesh")
    with pytest.raises(ValueError, match=r"cpu_flash cannot do head dim 16 with value head dim 9;"):
        attend(q, k, v[..., :9], backend="cpu_flash")


def test_every_backend_reports_and_the_reference_is_always_there() -> None:
    reports = {report.name: report for report in backends()}
    assert list(reports) == list(TABLE)
    assert reports["reference"].available
    assert all(report.available != bool(report.why) for report in reports.values())
    assert reports["cudnn"].available or reports["cudnn"].why == "no CUDA device"


def test_the_choice_on_a_cpu_is_torchs_flash_and_falls_back_aloud_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    q, k, v = qkv()
    assert choose(q, k, v) == "cpu_flash"
    with caplog.at_level(logging.WARNING, logger="frieze.kernels"):
        attend(q, k, v)
        assert not caplog.records
        for _ in range(2):
            assert choose(q, k, v[..., :13]) == "reference"
            attend(q, k, v[..., :13])
    reason = "cannot do head dim 16 with value head dim 13"
    assert caplog.messages == [f"attention backend cpu_flash {reason}; using another"]


def _broken(error: Exception) -> Backend:
    def run(*_: object) -> tuple[Tensor, Tensor]:
        raise error

    return Backend("cpu_flash", lambda: None, lambda *_: None, run)


def test_a_backend_that_breaks_is_passed_over_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    q, k, v = qkv()
    whole = attend(q, k, v)
    monkeypatch.setitem(TABLE, "cpu_flash", _broken(RuntimeError("no plan for it\nand a trace")))
    with caplog.at_level(logging.WARNING, logger="frieze.kernels"):
        assert difference(attend(q, k, v), whole) <= EXACT_FLOAT64
    assert caplog.messages == ["attention backend cpu_flash failed: no plan for it; using another"]
    with pytest.raises(RuntimeError, match="no plan for it"):
        attend(q, k, v, backend="cpu_flash")


def test_running_out_of_memory_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "cpu_flash", _broken(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        attend(*qkv())
