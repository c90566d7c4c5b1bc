"""Formulas of rotary frequencies, held to published and separately computed numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from frieze.renderer.errors import SpecError
from frieze.renderer.extrapolation import frequency_correction
from frieze.renderer.extrapolation.frequencies import (
    aware_factor,
    dominant,
    faded,
    kappa,
    ntk,
    periods,
    policy,
    temperature,
    vision_yarn,
)
from frieze.renderer.extrapolation.frequency_correction import CorrectionOptions
from frieze.renderer.models.positions import RotaryAxis, frequencies, trained
from frieze.renderer.spec.render_spec import RenderSpec

# What the tables print.
PRINTED = 0.05
LENGTHS = st.integers(2, 300)
STRETCHES = st.floats(1.0, 16.0)


def omega(dim: int, theta: float = 1e4) -> Tensor:
    return frequencies(RotaryAxis("row", dim, theta, 1, 1), torch.zeros(1))


def options(**given: Any) -> CorrectionOptions:
    return CorrectionOptions.read(RenderSpec(method="rdfc", method_options=given))


def chosen(dim: int, known: int, length: int, **given: Any) -> list[int]:
    return frequency_correction.chosen(
        omega(dim), RotaryAxis("row", dim, 1e4, known, length), options(**given)
    )


def test_periods_are_those_of_the_published_table() -> None:
    printed = [6.3, 8.7, 12.1, 16.9, 23.4, 32.5, 45.2, 62.8, 87.3, 121.3, 168.6, 234.2, 325.4]
    assert periods(omega(56))[:13].tolist() == pytest.approx(printed, abs=PRINTED)
    assert periods(omega(42))[:8].tolist() == pytest.approx(
        [6.3, 9.7, 15.1, 23.4, 36.3, 56.3, 87.3, 135.4], abs=PRINTED
    )
    assert periods(omega(32, 2000))[:8].tolist() == pytest.approx(
        [6.3, 10.1, 16.2, 26.1, 42.0, 67.6, 108.7, 174.7], abs=PRINTED
    )


@pytest.mark.parametrize(
    ("dim", "theta", "length", "k"),
    [
        (56, 1e4, 128, 9),
        (56, 1e4, 83, 8),
        (56, 1e4, 64, 7),
        (32, 1e4, 16, 2),
        (32, 1e4, 32, 3),
        (42, 1e4, 30, 4),
        (42, 1e4, 52, 5),
        (44, 1e4, 21, 3),
        (16, 256, 48, 3),
    ],
)
def test_the_dominant_frequency_has_the_period_nearest_to_the_trained_length(
    dim: int, theta: float, length: int, k: int
) -> None:
    assert dominant(omega(dim, theta), length) == k


def test_correction_gives_the_released_period_of_flux() -> None:
    slow = frequency_correction.corrected(omega(56), [9], 225, margin=0.85)
    assert float(periods(slow)[9]) == pytest.approx(264.71, abs=0.01)
    others = [j for j in range(28) if j != 9]
    assert torch.equal(slow[others], omega(56)[others])


def test_division_gives_the_released_periods_of_qwen() -> None:
    slow = frequency_correction.divided(omega(56), [8, 9], 256, 256 / 83)
    assert periods(slow)[8:10].tolist() == pytest.approx([269.28, 374.16], abs=0.01)


def test_division_falls_back_where_it_is_not_enough() -> None:
    """FLUX at 225 tokens: 121.3 * 225 / 128 is 213, which would repeat."""
    slow = frequency_correction.divided(omega(56), [9], 225, 225 / 128)
    assert float(periods(omega(56))[9]) * 225 / 128 < 225
    assert float(periods(slow)[9]) == pytest.approx(225)


@pytest.mark.parametrize(
    ("dim", "known", "length", "given", "ks"),
    [
        (56, 128, 225, {}, [9]),
        (56, 83, 256, {}, [8]),
        (56, 83, 256, {"n_rec": 2}, [8, 9]),
        (56, 83, 256, {"mode": "all"}, [8, 9, 10, 11]),
        (56, 128, 225, {"periods": (121.3,)}, [9]),
        (56, 83, 256, {"periods": (87.3, 121.3)}, [8, 9]),
        (56, 83, 256, {"periods": (83.0, 121.0, 300.0)}, [8, 9]),
        (56, 83, 100, {"n_rec": 2}, [8]),
        (56, 83, 256, {"ks": (9,)}, [9]),
        (32, 16, 32, {}, [2]),
        (32, 16, 64, {"mode": "all"}, [2, 3, 4]),
    ],
)
def test_frequencies_are_chosen_as_published(
    dim: int, known: int, length: int, given: dict[str, object], ks: list[int]
) -> None:
    assert chosen(dim, known, length, **given) == ks


def test_going_to_the_nearest_period_again_would_not_choose_as_published() -> None:
    """The control: by distance from 83 the next ones would be 7 and 6, which blurs."""
    omega_F = omega(56)
    assert (periods(omega_F) - 83).abs().argsort()[:3].tolist() == [8, 7, 6]
    assert chosen(56, 83, 256, n_rec=2) == [8, 9]


def test_an_index_beyond_the_axis_is_refused() -> None:
    with pytest.raises(SpecError, match="ks = 28; the row axis has frequencies 0 to 27"):
        chosen(56, 83, 256, ks=(8, 28))


def test_options_that_choose_twice_are_refused() -> None:
    with pytest.raises(SpecError, match="ks and periods both choose"):
        frequency_correction.corrected_positions(options(ks=(8,), periods=(87.0,)))


@given(dim=st.integers(2, 40), known=LENGTHS, extra=LENGTHS, edit=st.sampled_from(["p", "d"]))
def test_no_corrected_period_is_shorter_than_the_canvas(
    dim: int, known: int, extra: int, edit: str
) -> None:
    length = known + extra
    omega_F = omega(2 * dim)
    ks = frequency_correction.candidates(omega_F, known, length)
    if edit == "d":
        slow_F = frequency_correction.divided(omega_F, ks, length, length / known)
    else:
        slow_F = frequency_correction.corrected(omega_F, ks, length)
    assert bool((periods(slow_F)[dominant(omega_F, known) :] >= length * (1 - 1e-12)).all())
    assert bool((slow_F <= omega_F).all())
    kept = [j for j in range(dim) if j not in ks]
    assert torch.equal(slow_F[kept], omega_F[kept])


def test_ntk_leaves_periods_shorter_than_the_canvas() -> None:
    slow = ntk(omega(56), aware_factor(28, 256 / 83))
    assert periods(slow)[8:10].tolist() == pytest.approx([121.9, 176.6], abs=PRINTED)


@given(half_dim=st.integers(2, 32), scale=STRETCHES)
def test_ntk_keeps_the_highest_frequency_and_divides_the_lowest(
    half_dim: int, scale: float
) -> None:
    omega_F = omega(2 * half_dim)
    slow_F = ntk(omega_F, aware_factor(half_dim, scale))
    assert slow_F[0] == omega_F[0]
    assert float(slow_F[-1]) == pytest.approx(float(omega_F[-1]) / scale, rel=1e-12)
    by_j = scale ** (-2 * torch.arange(half_dim, dtype=torch.float64) / (2 * half_dim - 2))
    assert torch.allclose(slow_F, omega_F * by_j, rtol=1e-12, atol=0)
    assert bool((slow_F.diff() < 0).all())


@pytest.mark.parametrize(
    ("fade", "printed"),
    [
        (1.0, [42.1, 132.5, 349.2, 485.2, 674.2]),
        (0.7**2, [37.9, 85.4, 131.7, 241.0, 460.4]),
        (0.15**2, [32.5, 62.8, 87.3, 121.3, 168.6]),
    ],
)
def test_bands_for_pictures_have_the_released_periods(fade: float, printed: list[float]) -> None:
    slow = vision_yarn(omega(56), 1e4, 64, 4.0, fade)
    assert periods(slow)[[5, 7, 8, 9, 10]].tolist() == pytest.approx(printed, abs=PRINTED)


@pytest.mark.parametrize("fade", [0.0, 1e-300, 1e-9, 1e-6])
def test_bands_that_have_faded_are_the_trained_frequencies(fade: float) -> None:
    assert torch.equal(vision_yarn(omega(56), 1e4, 64, 4.0, fade), omega(56))


@given(half_dim=st.integers(1, 32), length=LENGTHS, scale=STRETCHES, fade=st.floats(0, 1))
def test_bands_lie_between_trained_and_interpolated(
    half_dim: int, length: int, scale: float, fade: float
) -> None:
    omega_F = omega(2 * half_dim)
    slow_F = vision_yarn(omega_F, 1e4, length, scale, fade)
    assert bool((slow_F <= omega_F * (1 + 1e-12)).all())
    assert bool((slow_F >= omega_F / scale * (1 - 1e-12)).all())


def test_an_axis_too_short_for_any_turn_is_interpolated() -> None:
    assert torch.allclose(vision_yarn(omega(8), 1e4, 2, 4.0), omega(8) / 4)


def test_temperature_is_the_published_one_on_rows_and_columns() -> None:
    assert temperature(RotaryAxis("row", 56, 1e4, 64, 256)) == pytest.approx(1.1386, abs=5e-5)
    assert temperature(RotaryAxis("column", 56, 1e4, 64, 64)) == 1
    assert temperature(RotaryAxis("frame", 16, 1e4, 64, 256)) == 1


def test_kappa_is_the_published_power() -> None:
    assert [kappa(t, 2.0, 2.0) for t in (0.0, 0.5, 1.0)] == [0.0, 0.5, 2.0]


def test_a_policy_acts_on_the_axes_named_only() -> None:
    positions = policy(lambda axis, omega_F, sigma: omega_F / 2, ("row",))
    row, frame = RotaryAxis("row", 8, 1e4, 4, 8), RotaryAxis("frame", 8, 1e4, 4, 8)
    at = torch.arange(8)
    assert torch.equal(positions(row, at, 1.0), trained(row, at, 1.0) / 2)
    assert torch.equal(positions(frame, at, 1.0), trained(frame, at, 1.0))


def test_a_faded_rule_is_whole_at_noise_and_nothing_at_the_end() -> None:
    axis = RotaryAxis("row", 8, 1e4, 4, 8)
    rule = faded(lambda axis, omega_F, sigma: omega_F / 4, 2.0)
    ratios = [float((rule(axis, omega(8), t) / omega(8))[1]) for t in (1.0, 0.5, 0.0)]
    assert ratios == pytest.approx([0.25, 0.25**0.25, 1.0])
    assert torch.equal(rule(axis, omega(8), 0.0), omega(8))
