"""The detail factor: FreeScale's own weights and blends, on any bands, with and without a mask."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.extrapolation.guides import Detail
from frieze.renderer.sampling.noise_levels import NoiseLevel, NoiseSchedule, Table
from frieze.renderer.sampling.schedule_table import table
from frieze.renderer.worker.stage_guides import DetailGuiding, Grid
from support.vectors import EXACT, difference, noise, uniform, vectors
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

EULER = NoiseSchedule(
    "euler",
    flow=False,
    prediction="epsilon",
    options={
        "_class_name": "EulerDiscreteScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
)
BANDS = ((Band(0, 16),), (Band(0, 5), Band(5, 16)), (Band(0, 7), Band(7, 8), Band(8, 16)))
(WEIGHTS,), (MAP,) = vectors("detail"), vectors("detail_map")


def levels(num_steps: int, start: float = 1.0) -> Table:
    """SDXL's noise levels."""
    return table(EULER, num_steps, tokens=1, training_tokens=1, start=start)


def test_weights_are_those_of_the_released_code() -> None:
    whole = levels(WEIGHTS["num_steps"]).levels
    for step in WEIGHTS["steps"]:
        level = whole[step["step"]]
        assert level.timestep == step["timestep"]
        assert level.alpha**2 == pytest.approx(step["alpha_bar"], rel=1e-6)
        hold = Detail().hold(EULER.time(level))
        for factor, weight in step["c"].items():
            # The authors take the cosine in float32.
            assert hold ** float(factor) == pytest.approx(weight, rel=1e-5, abs=1e-7)


def test_a_later_stage_restarts_where_the_released_code_does() -> None:
    """Of N steps the last N - int(0.3 N): from step 15 of 50, at time 681, with the same levels."""
    for num_steps in (50, 30, 20, 10, 7):
        steps = num_steps - int(0.3 * num_steps)
        made = levels(steps, start=steps / num_steps).levels
        assert made == levels(num_steps).levels[int(0.3 * num_steps) :]
    assert levels(35, start=35 / 50).levels[0].timestep == WEIGHTS["steps"][0]["timestep"]
    assert (WEIGHTS["restart"], WEIGHTS["last_dilated_step_exclusive"]) == (50 - 35, 0.7 * 50)


def test_rectified_flow_counts_time_by_its_sigma() -> None:
    flow = dataclasses.replace(EULER, flow=True)
    assert flow.time(NoiseLevel(250.0, 0.7, 0.3)) == 0.3


def blended(guide: Detail, bands: tuple[Band, ...], region: Tensor | None = None) -> Tensor:
    """The vector's latents at its step; g is such that, noised, it is the vector's `low`."""
    level = levels(MAP["num_steps"]).levels[MAP["step"]]
    height, width = MAP["latent"]
    x, low = (noise((1, 4, 1, height, width), seed) for seed in (52, 53))
    eps = noise((1, 4, 1, height, width), 99)
    g = (low - level.sigma * eps) / level.alpha

    def rank(comm: Comm) -> Tensor:
        own = slice(bands[comm.rank].start, bands[comm.rank].stop)
        guiding = DetailGuiding(
            guide,
            comm,
            Grid(Canvas(1, height, width), bands),
            [level, level],
            g_BCTHW=g[..., own, :],
            noise_BCTHW=eps[..., own, :],
            times=[EULER.time(level)],
            region_HW=None if region is None else region[own],
        )
        assert torch.equal(guiding.corrected(0, x[..., own, :]), x[..., own, :])
        return guiding.entered(0, x[..., own, :])

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), -2)


def region() -> Tensor:
    is_inside = uniform((8, 12), 51) > 0.5
    return is_inside.repeat_interleave(2, 0).repeat_interleave(2, 1).double()


@pytest.mark.parametrize("bands", BANDS)
def test_latents_are_blended_as_by_the_released_code(bands: tuple[Band, ...]) -> None:
    guide = Detail(inside=MAP["alpha_inside"], outside=MAP["alpha_outside"])
    made = blended(guide, bands, region())
    assert difference(made[:, :, 0], MAP["blend"]) <= 1e-6  # their cosine is float32
    control = blended(guide, bands, 1 - region())
    assert difference(control[:, :, 0], MAP["blend"]) > CONTROL


def test_weights_of_a_region_are_those_of_the_released_code() -> None:
    hold = Detail().hold(EULER.time(levels(50).levels[MAP["step"]]))
    made = hold ** (MAP["alpha_inside"] * region() + MAP["alpha_outside"] * (1 - region()))
    assert difference(made[None, None], MAP["c_map"]) <= 1e-6


@pytest.mark.parametrize("options", [{}, {"factor": 0.5}])
def test_without_a_mask_one_factor_is_everywhere(options: dict[str, Any]) -> None:
    guide = Detail(**options)
    whole = blended(guide, BANDS[0])
    for bands in BANDS[1:]:
        assert float((blended(guide, bands) - whole).abs().max()) <= EXACT_FLOAT64
    alike = Detail(inside=guide.factor, outside=guide.factor)
    assert float((blended(alike, BANDS[0], region()) - whole).abs().max()) <= EXACT
