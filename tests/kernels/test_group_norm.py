"""Moments of unequal parts merge to the canvas's; normalising with them is torch's group norm."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.kernels import group_norm, reference
from frieze.kernels.flop_count import flop_count
from frieze.kernels.group_norm import Moments, merge, moments, normalise
from tolerances import CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, HALF

GROUPS, EPS = 4, 1e-5
TOLERANCES = {
    torch.float64: EXACT_FLOAT64,
    torch.float32: EXACT_FLOAT32,
    torch.bfloat16: HALF,
}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).split(".")[1])
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def canvas(height: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x [2, 8, height, 5], brighter towards the bottom so that parts differ; weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 8, height, 5, dtype=torch.float64, generator=generator)
    x += torch.linspace(0, 3, height, dtype=torch.float64)[:, None]
    weight, bias = torch.randn(2, 8, dtype=torch.float64, generator=generator)
    return x, weight, bias


def in_parts(x: Tensor, weight: Tensor, bias: Tensor, cuts: list[int]) -> Tensor:
    edges = [0, *sorted(cuts), x.shape[2]]
    parts = [x[:, :, a:b] for a, b in itertools.pairwise(edges)]
    whole = merge([moments(part, GROUPS) for part in parts])
    normal = [normalise(part, GROUPS, weight, bias, EPS, whole) for part in parts]
    return torch.cat(normal, dim=2)


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 12), max_size=5), seed=st.integers(0, 99))
def test_parts_of_any_height_normalise_like_torch_does_the_whole(
    cuts: list[int], seed: int
) -> None:
    x, weight, bias = canvas(seed=seed)
    whole = F.group_norm(x, GROUPS, weight, bias, EPS)
    assert (in_parts(x, weight, bias, cuts) - whole).abs().max() <= EXACT_FLOAT64


def test_averaging_the_parts_variances_is_wrong() -> None:
    """It drops the variance between parts; so does the unbiased estimator err."""
    x, weight, bias = canvas()
    parts = [moments(part, GROUPS) for part in x.split([4, 8], dim=2)]
    whole = merge(parts)
    mean_variance = sum(part.variance for part in parts) / 2
    count, mean, m2 = whole.packed_3BG
    averaged = Moments(torch.stack((count, mean, mean_variance * count)))
    unbiased = Moments(torch.stack((count - 1, mean, m2)))
    truth = F.group_norm(x, GROUPS, weight, bias, EPS)
    for wrong in (averaged, unbiased):
        y = normalise(x, GROUPS, weight, bias, EPS, wrong)
        assert (y - truth).abs().max() > CONTROL


@DEVICES
@DTYPES
@pytest.mark.parametrize(
    "shape", [(1, 8, 1, 1), (2, 8, 63), (3, 8, 3, 5, 7), (2, 8, 65, 63), (2, 8)]
)
@pytest.mark.parametrize("affine", [True, False])
def test_whole_canvas_matches_the_reference(
    nan_memory: None, device: str, dtype: torch.dtype, shape: tuple[int, ...], affine: bool
) -> None:
    x = (2 * torch.randn(shape) + 1).to(device, dtype)
    weight, bias = torch.randn(2, 8).to(device, dtype) if affine else (None, None)
    y = normalise(x, GROUPS, weight, bias, EPS, moments(x, GROUPS))
    truth = reference.group_norm(
        x.double(),
        GROUPS,
        *(None if t is None else t.double() for t in (weight, bias)),
        EPS,
    )
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert (y - truth).abs().max() <= TOLERANCES[dtype] * max(1.0, truth.abs().max().item())


@DTYPES
def test_memory_layout_does_not_matter(nan_memory: None, dtype: torch.dtype) -> None:
    x, weight, bias = (t.to(dtype) for t in canvas())
    strided = x.contiguous(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    y = normalise(strided, GROUPS, weight, bias, EPS, moments(strided, GROUPS))
    truth = F.group_norm(x, GROUPS, weight, bias, EPS)
    assert (y - truth).abs().max() <= TOLERANCES[dtype] * truth.abs().max()


@DEVICES
def test_bfloat16_keeps_statistics_that_bfloat16_could_not(device: str) -> None:
    x = (5 + torch.randn(1, 8, 64, 64)).bfloat16().to(device)
    truth = moments(x.double(), GROUPS)
    found = moments(x, GROUPS)
    assert found.packed_3BG.dtype == torch.float64
    assert (found.mean - truth.mean).abs().max() <= 1e-5
    assert (found.variance - truth.variance).abs().max() <= 1e-5
    rounded = truth.mean.bfloat16().double()
    assert (rounded - truth.mean).abs().max() > CONTROL


def test_a_large_mean_costs_no_digits_of_the_variance() -> None:
    """Two passes keep what E[x^2] - E[x]^2 in float32 loses."""
    x = 1000 + torch.randn(1, 8, 50, 50)
    truth = moments(x.double(), GROUPS).variance
    assert (moments(x, GROUPS).variance - truth).abs().max() <= EXACT_FLOAT32
    x_GN = x.view(GROUPS, -1)
    one_pass = x_GN.square().mean(-1) - x_GN.mean(-1).square()
    assert (one_pass - truth[0]).abs().max() > CONTROL


@pytest.mark.parametrize("budget", [1, 7, 120, 121, 10_000])
@DTYPES
def test_the_size_of_pieces_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, budget: int
) -> None:
    x = canvas()[0].to(dtype)
    monkeypatch.setattr(group_norm, "DEVIATIONS_ON_CPU", budget)
    _, mean, m2 = reference.moments(x.double(), GROUPS)
    found = moments(x, GROUPS)
    assert (found.mean - mean).abs().max() <= (1e-10 if dtype == torch.float64 else 1e-5)
    assert ((found.m2 - m2) / m2).abs().max() <= (1e-10 if dtype == torch.float64 else 1e-5)


def test_no_float32_twin_of_a_bfloat16_canvas_is_held(allocations: Callable[[], Any]) -> None:
    x = torch.randn(1, 8, 512, 512).bfloat16()
    with allocations() as watched:
        normalise(x, GROUPS, None, None, EPS, moments(x, GROUPS))
    wide = [size for dtype, size in watched.seen if dtype != torch.bfloat16]
    assert max(wide) <= group_norm.DEVIATIONS_ON_CPU < x.numel()


def test_an_empty_part_changes_nothing_and_normalises_to_nothing() -> None:
    x, weight, bias = canvas()
    empty, whole = moments(x[:, :, :0], GROUPS), moments(x, GROUPS)
    for merged in (merge([empty, whole]), merge([whole, empty])):
        assert torch.equal(merged.packed_3BG, whole.packed_3BG)
    assert (merge([empty, empty]).packed_3BG == 0).all()
    assert normalise(x[:, :, :0], GROUPS, weight, bias, EPS, whole).shape == (2, 8, 0, 5)


def test_merging_in_the_same_order_gives_the_same_bits() -> None:
    parts = [moments(part, GROUPS) for part in canvas()[0].float().split([1, 4, 5, 2], dim=2)]
    again = [Moments(part.packed_3BG.clone()) for part in parts]
    assert torch.equal(merge(parts).packed_3BG, merge(again).packed_3BG)


def test_many_parts_merge_in_as_many_operations_as_two() -> None:
    """Each is a launch on an accelerator, in every norm of every step."""
    parts = [moments(part, GROUPS) for part in canvas()[0].split([3] * 4, dim=2)]
    calls = []
    for number in (2, 4):
        with flop_count() as count:
            merge(parts[:number])
        calls.append(count.work.calls)
    assert calls[0] == calls[1] <= 16
    one_by_one = functools.reduce(lambda whole, part: merge([whole, part]), parts)
    apart = (one_by_one.packed_3BG - merge(parts).packed_3BG).abs().max()
    assert apart <= EXACT_FLOAT64


def test_channels_must_split_into_the_groups() -> None:
    with pytest.raises(ValueError, match="8 channels do not split into 3 groups"):
        moments(canvas()[0], 3)
