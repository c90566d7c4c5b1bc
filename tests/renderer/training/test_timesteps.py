"""Times and weights of SD3's training, against the paper's formulas and diffusers' helpers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from torch import Tensor

from frieze.renderer.training.timesteps import (
    MOST_MODE_SCALE,
    CosMap,
    LogitNormal,
    Mode,
    Shifted,
    Timesteps,
    Uniform,
    loss_weight,
    sample,
    shift_for,
)
from tolerances import CONTROL, EXACT_FLOAT64

ALL: list[Timesteps] = [
    Uniform(),
    LogitNormal(),
    LogitNormal(0.5, 0.6),
    LogitNormal(1.0, 0.6),
    Mode(),
    Mode(1.5),
    Mode(-0.7),
    CosMap(),
    Shifted(LogitNormal(), 3.0),
    Shifted(Mode(), 0.5),
]
EVEN = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
INTEGRAL = 1e-4  # of a sum over 8000 slices of a smooth density


def integral(timesteps: Timesteps, stop: float) -> float:
    """Of the density from 0 on, in slices that are fine where the times are many."""
    edges = torch.linspace(0, stop, 8001, dtype=torch.float64)
    return float(timesteps.density((edges[1:] + edges[:-1]) / 2).sum() * (edges[1] - edges[0]))


@pytest.mark.parametrize("timesteps", ALL, ids=str)
def test_the_density_is_that_of_the_quantiles(timesteps: Timesteps) -> None:
    for u in (0.1, 0.5, 0.9):
        t = float(timesteps.quantile(torch.tensor([u])))
        assert integral(timesteps, t) == pytest.approx(u, abs=INTEGRAL)


@pytest.mark.parametrize("timesteps", ALL, ids=str)
def test_control_no_other_density_is(timesteps: Timesteps) -> None:
    others = [other for other in ALL if other != timesteps]
    u_B = torch.tensor([0.1, 0.5, 0.9])
    times = timesteps.quantile(u_B).tolist()
    for other in others:
        worst = max(abs(integral(other, t) - float(u)) for t, u in zip(times, u_B, strict=True))
        assert worst > CONTROL


@pytest.mark.parametrize("timesteps", ALL, ids=str)
def test_times_rise_within_their_range(timesteps: Timesteps) -> None:
    t_B = timesteps.quantile(EVEN)
    assert bool((t_B.diff() > 0).all())
    assert 0 < float(t_B[0]) < float(t_B[-1]) < 1
    assert timesteps.density(t_B).isfinite().all()


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.81, 1.29, MOST_MODE_SCALE])
def test_mode_is_one_to_one_up_to_its_bounds(scale: float) -> None:
    assert bool((Mode(scale).quantile(EVEN).diff() > 0).all())


@pytest.mark.parametrize("scale", [-1.1, MOST_MODE_SCALE + 0.01, 2 / math.pi - 4, math.nan])
def test_mode_beyond_its_bounds_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale .* of mode; -1 to 1\.7519 works"):
        Mode(scale)


def test_moments() -> None:
    """A logit-normal's median and logits; mode's and CosMap's mean is 1/2 by symmetry."""
    logits = LogitNormal(0.5, 0.6).quantile(EVEN).logit()
    assert float(logits.mean()) == pytest.approx(0.5, abs=1e-6)
    assert float(logits.std()) == pytest.approx(0.6, abs=1e-3)
    for symmetric in (Mode(), CosMap(), LogitNormal(), Uniform()):
        assert float(symmetric.quantile(EVEN).mean()) == pytest.approx(0.5, abs=1e-6)
    median = float(LogitNormal(1.0, 0.6).quantile(torch.tensor([0.5])))
    assert median == pytest.approx(1 / (1 + math.exp(-1)))


def drawn(scheme: str, **options: Any) -> Tensor:
    """diffusers' times of 256 uniform numbers from seed 0."""
    return compute_density_for_timestep_sampling(
        scheme, 256, generator=torch.Generator().manual_seed(0), **options
    )


def test_mode_is_that_of_diffusers() -> None:
    """From the same uniform numbers, of which ours are the complement: the paper's fall with u."""
    u_B = torch.rand(256, generator=torch.Generator().manual_seed(0))
    expected = drawn("mode", mode_scale=1.29).double()
    torch.testing.assert_close(Mode(1.29).quantile(1 - u_B.double()), expected, atol=1e-6, rtol=0)


def test_a_density_as_a_weight_is_that_of_diffusers() -> None:
    torch.testing.assert_close(
        CosMap().density(EVEN), compute_loss_weighting_for_sd3("cosmap", EVEN)
    )
    weight = compute_loss_weighting_for_sd3("sigma_sqrt", EVEN)
    torch.testing.assert_close(loss_weight("sample", EVEN).float(), weight)


def test_a_shift_moves_the_log_snr() -> None:
    plain, later = LogitNormal(), Shifted(LogitNormal(), 3.0)
    moved = later.quantile(EVEN).logit() - plain.quantile(EVEN).logit()
    assert float((moved - math.log(3)).abs().max()) < EXACT_FLOAT64
    t_B = plain.quantile(EVEN)
    assert torch.equal(later.quantile(EVEN), 3 * t_B / (1 + 2 * t_B))
    assert Shifted(plain, 1.0).quantile(EVEN).equal(t_B)


def test_a_shift_leaves_the_error_of_a_flat_picture() -> None:
    """sigma(t, n) = t / (1 - t) / sqrt(n), the same at m pixels after the shift."""
    base, tokens = 256**2, 1024**2
    t_B = Uniform().quantile(EVEN)
    later_B = Shifted(Uniform(), shift_for(tokens, base)).quantile(EVEN)
    before = t_B / (1 - t_B) / math.sqrt(base)
    torch.testing.assert_close(later_B / (1 - later_B) / math.sqrt(tokens), before)
    assert shift_for(tokens, base) == 4


@pytest.mark.parametrize("prediction", ["velocity", "epsilon", "sample"])
def test_weighed_errors_are_those_of_the_velocity(prediction: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x0_B, eps_B, wrong_B = torch.randn(3, 4000, generator=generator, dtype=torch.float64)
    xt_B = (1 - EVEN) * x0_B + EVEN * eps_B
    v_B = eps_B - x0_B + wrong_B
    guess = {"velocity": v_B, "epsilon": xt_B + (1 - EVEN) * v_B, "sample": xt_B - EVEN * v_B}
    truth = {"velocity": eps_B - x0_B, "epsilon": eps_B, "sample": x0_B}
    error_B = (guess[prediction] - truth[prediction]).square()
    weighed_B = loss_weight(prediction, EVEN) * error_B
    torch.testing.assert_close(weighed_B, wrong_B.square(), rtol=1e-6, atol=1e-9)
    if prediction != "velocity":  # the control
        assert float((error_B - wrong_B.square()).abs().max()) > CONTROL


def test_the_weight_of_noise_is_that_of_the_paper() -> None:
    """-lambda'(t) w_t / 2 with w_t = t / (1 - t) and lambda = log((1 - t)^2 / t^2)."""
    slope = -2 / (EVEN * (1 - EVEN))
    expected = -slope * EVEN / (1 - EVEN) / 2
    torch.testing.assert_close(loss_weight("epsilon", EVEN), expected)


def test_a_weight_has_a_bound_where_it_is_given_one() -> None:
    assert float(loss_weight("sample", torch.zeros(1), least=0.125)) == 64
    with pytest.raises(ValueError, match="prediction 'score'"):
        loss_weight("score", EVEN)


def test_samples_come_from_their_generator_and_are_never_0() -> None:
    one, same, other = (
        sample(LogitNormal(), 64, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert one.equal(same)
    assert not one.equal(other)
    assert all(float(each.quantile(torch.tensor([2.0**-53]))) > 0 for each in ALL)


@pytest.mark.parametrize("make", [lambda: LogitNormal(0, 0), lambda: Shifted(Uniform(), -1)])
def test_what_has_no_times_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="above 0 works"):
        make()
