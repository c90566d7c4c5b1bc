"""The timestep shift beyond the trained size."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from frieze.renderer.sampling.timestep_shift import alpha_for, shifted, unshifted
from support.schedulers import (
    CANVAS,
    DYNAMIC,
    EXPLICIT,
    FLUX2,
    LARGE,
    QWEN,
    SD3,
    TRAINED,
    WAN,
    Config,
    plain,
    schedule_of,
    sigmas,
    stock_flow,
)


@pytest.mark.parametrize("num_steps", [20, 28, 50])
@pytest.mark.parametrize("name", LARGE)
def test_no_two_sigmas_coincide_at_4096_pixels(tmp_path: Path, name: str, num_steps: int) -> None:
    config, facts = LARGE[name]
    made = plain(schedule_of(tmp_path, config, **facts), num_steps, CANVAS)
    assert min(a - b for a, b in itertools.pairwise(sigmas(made))) > 5e-4


@pytest.mark.parametrize(
    "mu", [calculate_shift(CANVAS, 256, 4096, 0.5, 1.15), compute_empirical_mu(CANVAS, 28)]
)
def test_a_line_of_mu_would_leave_one_step(tmp_path: Path, mu: float) -> None:
    """The control: what the stock pipelines of FLUX do at that size."""
    collapsed = stock_flow(DYNAMIC, 28, True, mu).sigmas.numpy()
    assert collapsed[-2] > 0.999
    forced = sigmas(plain(schedule_of(tmp_path, DYNAMIC), 28, CANVAS, shift=math.exp(mu)))
    assert min(a - b for a, b in itertools.pairwise(forced)) < 1e-6


@pytest.mark.parametrize(
    ("config", "facts", "own"),
    [
        (SD3, {}, 3.0),
        (WAN, {}, 3.0),
        (DYNAMIC, EXPLICIT, math.exp(1.15)),
        (DYNAMIC, FLUX2, math.exp(compute_empirical_mu(4096, 28))),
        ({**DYNAMIC, "time_shift_type": "linear"}, EXPLICIT, 1.15),
    ],
)
def test_a_shift_grows_by_the_square_root_beyond_the_trained_size(
    tmp_path: Path, config: Config, facts: dict[str, Any], own: float
) -> None:
    schedule = schedule_of(tmp_path, config, **facts)
    shifts = [plain(schedule, 28, TRAINED * times).shift for times in (1, 4, 16)]
    assert shifts == pytest.approx([own, 2 * own, 4 * own])


def test_mu_grows_by_its_line_up_to_its_most_tokens(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, QWEN)
    assert alpha_for(schedule, 8192, 6889, 28) == pytest.approx(math.exp(0.9))
    assert alpha_for(schedule, 4 * 8192, 6889, 28) == pytest.approx(2 * math.exp(0.9))


def test_a_small_canvas_lowers_no_static_shift(tmp_path: Path) -> None:
    assert plain(schedule_of(tmp_path, SD3), 28, 64).shift == 3


def test_unshifted_inverts_shifted() -> None:
    for sigma in (0.0, 0.1, 0.5, 0.97, 1.0):
        assert unshifted(shifted(sigma, 6.3), 6.3) == pytest.approx(sigma)
