"""Each step of the pipeline that makes a table of noise levels, beside diffusers alone."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from frieze.renderer.sampling.schedule_table import (
    evaluated,
    flow_levels,
    flow_shift,
    kept_steps,
    stock_levels,
)
from support.schedulers import (
    DYNAMIC,
    EXPLICIT,
    SD3,
    SD15_PNDM,
    SD21_DDIM,
    SDXL_EULER,
    Config,
    schedule_of,
)

# numpy 2 dislikes how diffusers' schedulers make arrays of tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("tokens", [256, 1000, 4096])
def test_the_shift_alone_is_diffusers(tmp_path: Path, tokens: int) -> None:
    of_tokens = {"tokens": tokens, "training_tokens": 4096}
    flow = schedule_of(tmp_path, DYNAMIC, **EXPLICIT)
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    assert flow_shift(flow, 20, None, **of_tokens) == pytest.approx(math.exp(mu))
    assert flow_shift(flow, 20, 2.5, **of_tokens) == 2.5
    assert flow_shift(schedule_of(tmp_path, SDXL_EULER), 20, None, **of_tokens) is None


@pytest.mark.parametrize("alpha", [1.0, 3.0, 9.5])
def test_flow_levels_alone_are_diffusers(tmp_path: Path, alpha: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=alpha)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20))
    found = flow_levels(schedule_of(tmp_path, SD3, **EXPLICIT), 20, alpha, 1.0)
    ours = [level.sigma for level in found]
    np.testing.assert_allclose(ours, scheduler.sigmas.numpy(), atol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_stock_levels_alone_are_diffusers(tmp_path: Path, num_steps: int) -> None:
    scheduler = DDIMScheduler.from_config(SD21_DDIM)
    scheduler.set_timesteps(num_steps)
    found, scale = stock_levels(schedule_of(tmp_path, SD21_DDIM), num_steps, None)
    assert [level.timestep for level in found[:-1]] == scheduler.timesteps.tolist()
    squares = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
    assert [level.alpha**2 for level in found[:-1]] == pytest.approx(squares)
    assert scale == 1


@pytest.mark.parametrize("num_steps", [1, 2, 5, 20])
def test_the_order_of_plms_alone_is_diffusers(tmp_path: Path, num_steps: int) -> None:
    schedule = schedule_of(tmp_path, SD15_PNDM)
    scheduler = PNDMScheduler.from_config(SD15_PNDM)
    scheduler.set_timesteps(num_steps)
    found = evaluated(schedule, stock_levels(schedule, num_steps, None)[0])
    # Of one step diffusers makes two of the same level.
    times = list(dict.fromkeys(scheduler.timesteps.tolist())) if num_steps == 1 else None
    assert [level.timestep for level in found[:-1]] == (times or scheduler.timesteps.tolist())


@pytest.mark.parametrize("num_steps", [3, 7, 28, 50])
@pytest.mark.parametrize(
    ("config", "pipeline"),
    [(SD3, StableDiffusion3Img2ImgPipeline), (SD21_DDIM, StableDiffusionImg2ImgPipeline)],
)
def test_the_steps_kept_alone_are_diffusers(
    tmp_path: Path, config: Config, pipeline: Any, num_steps: int
) -> None:
    schedule = schedule_of(tmp_path, config)
    timesteps = list(range(num_steps))
    stock = SimpleNamespace(scheduler=SimpleNamespace(timesteps=timesteps, order=1))
    for strength in (0.35, 0.5, 0.6, 0.77, 1.0):
        _, kept = pipeline.get_timesteps(stock, num_steps, strength, "cpu")
        assert kept_steps(schedule, num_steps, strength) == kept
