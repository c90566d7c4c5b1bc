"""Repetition found by correlation, and the frequencies behind it, one round after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from frieze.renderer.extrapolation.frequencies import periods
from frieze.renderer.extrapolation.frequency_correction import corrected
from frieze.renderer.models.positions import RotaryAxis, frequencies
from frieze.renderer.repetition.autocorrelation import (
    Observation,
    lag_profile,
    observed,
    period,
    recursion,
)

FLUX = RotaryAxis("row", 56, 10000.0, trained=128, length=225)
QWEN = RotaryAxis("row", 56, 10000.0, trained=83, length=256)


def omega(axis: RotaryAxis) -> Tensor:
    return frequencies(axis, torch.zeros(1))


def published(*lags: float) -> Callable[[tuple[int, ...]], Sequence[Observation]]:
    """Observes these periods, one in each round, and then nothing."""
    rest = iter(lags)

    def observe(ks: tuple[int, ...]) -> Sequence[Observation]:
        lag = next(rest, None)
        return (Observation("row", (), None if lag is None else round(lag)),)

    return observe


def test_published_periods_of_flux_choose_its_published_frequency() -> None:
    rounds = recursion([FLUX], published(121.3))
    assert [each.corrected for each in rounds] == [(), (9,)]


def test_published_periods_of_qwen_choose_its_published_frequencies() -> None:
    rounds = recursion([QWEN], published(87.3, 121.3))
    assert [each.corrected for each in rounds] == [(), (8,), (8, 9)]
    # The control: a model that never repeats is left alone.
    assert [each.corrected for each in recursion([QWEN], published())] == [()]


def planted(
    axis: RotaryAxis, ks: Sequence[int], strength: Sequence[float], fixed: Sequence[int]
) -> Tensor:
    """Latents [C, T, H, W] whose rows hang on the phases of planted frequencies alone.

    What a network that attends by these phases draws: content is a smooth function of each
    frequency's phase, but for some that were corrected.
    """
    generator = torch.Generator().manual_seed(3)
    omega_F = corrected(omega(axis), fixed, axis.length)
    at_S = torch.arange(axis.length, dtype=torch.float64)
    x_CHW = torch.zeros(6, axis.length, 24, dtype=torch.float64)
    for k, weight in zip(ks, strength, strict=True):
        for turn in (1, 2, 3):
            shape = (2, 6, 1, 24)
            a, b = torch.randn(shape, generator=generator, dtype=torch.float64) * weight / turn
            phase_S = (turn * omega_F[k] * at_S)[:, None]
            x_CHW += a * phase_S.cos() + b * phase_S.sin()
    x_CHW += 0.3 * torch.randn(x_CHW.shape, generator=generator, dtype=torch.float64)
    return x_CHW[:, None]


@pytest.mark.parametrize(
    ("axis", "k"),
    [
        (FLUX, 9),
        (QWEN, 8),
        (QWEN, 9),
        (RotaryAxis("row", 32, 10000.0, 16, 32), 2),
        (RotaryAxis("row", 32, 10000.0, 16, 64), 3),
        (RotaryAxis("row", 42, 10000.0, 30, 90), 5),
    ],
)
def test_a_planted_frequency_is_found_and_nothing_repeats_once_it_is_corrected(
    axis: RotaryAxis, k: int
) -> None:
    def observe(ks: tuple[int, ...]) -> Sequence[Observation]:
        return observed([planted(axis, [k], [1.0], ks)], [axis], patch=1)

    rounds = recursion([axis], observe)
    assert [each.corrected for each in rounds] == [(), (k,)]
    assert rounds[0].seen[0].period == pytest.approx(float(periods(omega(axis))[k]), abs=1.5)


def test_of_two_planted_frequencies_both_are_found() -> None:
    """The stronger one first, and the weaker one once that no longer hides it."""
    axis = RotaryAxis("row", 32, 10000.0, 16, 96)

    def observe(ks: tuple[int, ...]) -> Sequence[Observation]:
        return observed([planted(axis, [2, 3], [1.0, 0.6], ks)], [axis], patch=1)

    assert recursion([axis], observe)[-1].corrected == (2, 3)


def test_noise_and_slopes_and_texture_are_no_repetition() -> None:
    noise = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    slope = torch.linspace(0, 5, 64)[:, None].expand(4, 1, 64, 64) + 0.1 * noise
    texture = torch.sin(torch.arange(64) * math.pi / 6)[:, None].expand(4, 1, 64, 64)
    axis = RotaryAxis("row", 32, 10000.0, trained=16, length=32)
    for x in (noise, slope):
        assert period(lag_profile(x, "row", 1), axis) is None
    # Waves of 12 tokens repeat, but no frequency that may be behind it has such a period.
    profile_L = lag_profile(texture, "row", 1)
    assert float(profile_L[12]) > 0.9
    assert period(profile_L[:20], axis) is None


def test_rows_and_columns_are_told_apart() -> None:
    axis = RotaryAxis("row", 32, 10000.0, 16, 64)
    drawn = planted(axis, [2], [1.0], [])
    assert period(lag_profile(drawn, "row", 1), axis) == 20
    assert period(lag_profile(drawn.transpose(2, 3), "column", 1), axis) == 20
    axes = [axis, RotaryAxis("column", 32, 10000.0, 16, 16), RotaryAxis("frame", 8, 10000.0, 1, 9)]
    assert [seen.axis for seen in observed([drawn], axes, 1)] == ["row"]
