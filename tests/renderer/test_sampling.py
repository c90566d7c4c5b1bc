"""Schedules and the solver against diffusers' scheduler."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from frieze.renderer.family import FlowSchedule
from frieze.renderer.sampling import (
    alpha_for,
    euler,
    flow_sigmas,
    noised,
    shifted,
    unshifted,
)

FLUX_DEV = FlowSchedule(shift=3.0, dynamic=True)


def diffusers_sigmas(num_steps: int, **config: object) -> np.ndarray:
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=config.get("shift", 1.0), use_dynamic_shifting="mu" in config
    )
    even = np.linspace(1.0, 1 / num_steps, num_steps)
    scheduler.set_timesteps(sigmas=even, mu=config.get("mu"))
    return scheduler.sigmas.numpy()


@pytest.mark.parametrize("num_steps", [1, 4, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_static_shift_equals_diffusers(num_steps: int, shift: float) -> None:
    ours = flow_sigmas(num_steps, shift)
    np.testing.assert_allclose(ours, diffusers_sigmas(num_steps, shift=shift), atol=1e-6)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_dynamic_shift_equals_diffusers_up_to_the_trained_tokens(tokens: int) -> None:
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    alpha = alpha_for(FLUX_DEV, tokens, 4096)
    np.testing.assert_allclose(flow_sigmas(28, alpha), diffusers_sigmas(28, mu=mu), atol=1e-6)


def test_dynamic_shift_grows_by_the_square_root_beyond_the_trained_tokens() -> None:
    assert alpha_for(FLUX_DEV, 16384, 4096) == pytest.approx(math.exp(1.15) * 2)
    assert alpha_for(FLUX_DEV, 65536, 4096) == pytest.approx(math.exp(2.536), rel=1e-3)


def test_no_two_sigmas_coincide_at_4096_pixels() -> None:
    sigmas = flow_sigmas(28, alpha_for(FLUX_DEV, 65536, 4096))
    assert min(a - b for a, b in itertools.pairwise(sigmas)) > 1e-3
    # The control: the pipeline's unbounded mu leaves all but the last step at sigma 1.
    stock = diffusers_sigmas(28, mu=calculate_shift(65536, 256, 4096, 0.5, 1.15))
    assert np.diff(stock[:-1]).max() > -1e-3


def test_static_shift_grows_by_the_square_root_beyond_the_trained_tokens() -> None:
    sd3 = FlowSchedule(shift=3.0)
    shifts = [alpha_for(sd3, (side // 16) ** 2, 4096) for side in (512, 1024, 2048, 4096)]
    assert shifts == pytest.approx([3, 3, 6, 12])


def test_a_restart_begins_exactly_at_its_sigma() -> None:
    sigmas = flow_sigmas(7, 2.0, start=0.45)
    assert sigmas[0] == pytest.approx(0.45)
    assert sigmas[-1] == 0
    assert list(sigmas) == sorted(sigmas, reverse=True)


def test_unshifted_inverts_shifted() -> None:
    for sigma in (0.0, 0.1, 0.5, 0.97, 1.0):
        assert unshifted(shifted(sigma, 6.3), 6.3) == pytest.approx(sigma)


def test_euler_equals_diffusers_step() -> None:
    torch.manual_seed(0)
    x, velocity = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.25, 4))
    stock = scheduler.step(velocity, scheduler.timesteps[0], x).prev_sample
    sigma, sigma_next = (float(s) for s in scheduler.sigmas[:2])
    torch.testing.assert_close(euler(x, x - sigma * velocity, sigma, sigma_next), stock)


def test_a_perfect_model_reaches_the_clean_latents() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    sigmas = flow_sigmas(5, 3.0, start=0.6)
    x = noised(clean, noise, sigmas[0])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = euler(x, clean, sigma, sigma_next)
    torch.testing.assert_close(x, clean)
