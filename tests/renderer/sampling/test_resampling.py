"""Steps that are drawn again: which, and that a level's noise is what it is to be."""

from __future__ import annotations

import itertools

import pytest
import torch

from frieze.renderer.sampling.noise_levels import NoiseLevel
from frieze.renderer.sampling.resampling import LAYOUT, draws, noised_again
from tolerances import EXACT_FLOAT64

FLOW = [NoiseLevel(1000 * s, 1 - s, s) for s in (1.0, 0.9, 0.7, 0.5, 0.2, 0.0)]
VARIANCE = [NoiseLevel(0, (1 - s * s) ** 0.5, s) for s in (0.99, 0.8, 0.6, 0.0)]


@pytest.mark.parametrize("levels", [FLOW[1:], VARIANCE], ids=["flow", "variance"])
def test_latents_have_the_signal_and_the_noise_of_their_level_again(
    levels: list[NoiseLevel],
) -> None:
    for here, there in itertools.pairwise(levels):
        none, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        signal = noised_again(there.alpha * one, here, there, none)
        assert abs(float(signal) - here.alpha) <= EXACT_FLOAT64
        old = noised_again(there.sigma * one, here, there, none)
        new = noised_again(none, here, there, one)
        assert abs(float(old**2 + new**2) - here.sigma**2) <= EXACT_FLOAT64
        assert float(new) > 0, "control: fresh noise counts"


def test_noisy_steps_but_the_first_are_drawn_so_often() -> None:
    assert draws(FLOW, 4) == (1, 4, 4, 1, 1)
    assert FLOW[3].sigma == LAYOUT, "the last of them ends there"
    assert draws(FLOW, 1) == (1, 1, 1, 1, 1)
