"""Tables of noise levels against what stock pipelines use, and beyond the trained size."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import (
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from frieze.renderer.checkpoints.scheduler_config import STATED, read_schedule
from frieze.renderer.errors import ModelError, PlanError
from frieze.renderer.sampling.noise_levels import Table
from frieze.renderer.sampling.schedule_table import table
from frieze.renderer.sampling.timestep_shift import shifted
from support.schedulers import (
    CANVAS,
    DPM_KARRAS,
    DYNAMIC,
    EXPLICIT,
    FLUX2,
    LARGE,
    QWEN,
    SD3,
    SD15_PNDM,
    SD21_DDIM,
    SDXL_EULER,
    SDXL_TURBO,
    WAN,
    Config,
    plain,
    schedule_of,
    sigmas,
    stable_diffusion,
    stock_flow,
)

# numpy 2 dislikes how diffusers' schedulers make arrays of tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = [1, 2, 3, 5, 20, 28]
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def assert_same(made: Table, scheduler: Any) -> None:
    np.testing.assert_allclose(sigmas(made), scheduler.sigmas.numpy(), atol=1e-6)
    times = [level.timestep for level in made.levels[:-1]]
    np.testing.assert_allclose(times, scheduler.timesteps.numpy(), atol=1e-3)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("explicit", [True, False])
def test_a_static_shift_equals_diffusers(tmp_path: Path, num_steps: int, explicit: bool) -> None:
    made = plain(schedule_of(tmp_path, SD3, explicit_sigmas=explicit), num_steps)
    assert_same(made, stock_flow(SD3, num_steps, explicit))
    assert made.shift == 3.0


def test_the_least_sigma_of_sd3_is_shifted_twice(tmp_path: Path) -> None:
    """As diffusers has it; sigmas that a pipeline passes are shifted once."""
    twice = sigmas(plain(schedule_of(tmp_path, SD3), 28))
    assert twice[-2] == pytest.approx(shifted(shifted(0.001, 3), 3))
    once = sigmas(plain(schedule_of(tmp_path, SD3, explicit_sigmas=True), 28))
    assert once[-2] == pytest.approx(shifted(1 / 28, 3))


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
@pytest.mark.parametrize("num_steps", STEPS)
def test_a_dynamic_shift_equals_diffusers_up_to_the_trained_size(
    tmp_path: Path, tokens: int, num_steps: int
) -> None:
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    made = plain(schedule_of(tmp_path, DYNAMIC, **EXPLICIT), num_steps, tokens)
    assert_same(made, stock_flow(DYNAMIC, num_steps, True, mu))
    assert made.shift == pytest.approx(math.exp(mu))


@pytest.mark.parametrize("num_steps", STEPS)
def test_flux2_has_its_own_fit(tmp_path: Path, num_steps: int) -> None:
    mu = compute_empirical_mu(4096, num_steps)
    made = plain(schedule_of(tmp_path, DYNAMIC, **FLUX2), num_steps)
    assert_same(made, stock_flow(DYNAMIC, num_steps, True, mu))
    wide = table(
        schedule_of(tmp_path, DYNAMIC, **FLUX2), num_steps, tokens=8192, training_tokens=8192
    )
    assert_same(wide, stock_flow(DYNAMIC, num_steps, True, compute_empirical_mu(8192, num_steps)))


@pytest.mark.parametrize("num_steps", STEPS[1:])
@pytest.mark.parametrize(
    "changed",
    [{}, {"time_shift_type": "linear"}, {"use_karras_sigmas": True}, {"use_beta_sigmas": True}],
    ids=str,
)
def test_qwen_stretches_to_its_terminal_sigma(
    tmp_path: Path, num_steps: int, changed: Config
) -> None:
    config = {**QWEN, **changed}
    made = plain(schedule_of(tmp_path, config, **EXPLICIT), num_steps)
    assert_same(
        made, stock_flow(config, num_steps, True, calculate_shift(4096, 256, 8192, 0.5, 0.9))
    )
    assert made.levels[-2].sigma == pytest.approx(0.02, abs=1e-6)


def test_one_step_needs_no_terminal_sigma(tmp_path: Path) -> None:
    """diffusers divides by zero there."""
    assert sigmas(plain(schedule_of(tmp_path, QWEN, **EXPLICIT), 1)) == [1, 0]


@pytest.mark.parametrize("flow_shift", [3.0, 5.0])
@pytest.mark.parametrize("num_steps", [*STEPS, 40, 50])
def test_wan_is_told_whole_timesteps(tmp_path: Path, num_steps: int, flow_shift: float) -> None:
    config = {**WAN, "flow_shift": flow_shift}
    made = plain(schedule_of(tmp_path, config), num_steps)
    scheduler = UniPCMultistepScheduler.from_config(config)
    scheduler.set_timesteps(num_steps)
    assert sigmas(made) == [float(s) for s in scheduler.sigmas]
    assert [level.timestep for level in made.levels[:-1]] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("config", [SD15_PNDM, SD21_DDIM, SDXL_EULER, SDXL_TURBO, DPM_KARRAS])
def test_all_but_flow_preserve_variance(tmp_path: Path, config: Config) -> None:
    made = plain(schedule_of(tmp_path, config), 20)
    assert made.shift is None
    assert all(math.isclose(at.alpha**2 + at.sigma**2, 1) for at in made.levels)
    falling = itertools.pairwise(sigmas(made))
    assert all(before >= after for before, after in falling)


def test_plms_reaches_its_second_level_twice(tmp_path: Path) -> None:
    times = [level.timestep for level in plain(schedule_of(tmp_path, SD15_PNDM), 5).levels]
    assert times == [801, 601, 601, 401, 201, 1, 0]
    assert len(plain(schedule_of(tmp_path, SD15_PNDM), 1).levels) == 2


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_noise_is_scaled_as_euler_wants_it(tmp_path: Path, spacing: str) -> None:
    config = {**SDXL_EULER, "timestep_spacing": spacing}
    made = plain(schedule_of(tmp_path, config), 20)
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(20)
    first = made.levels[0]
    assert made.scale == pytest.approx(float(scheduler.init_noise_sigma) * first.alpha)
    assert made.scale == pytest.approx(1 if spacing == "leading" else first.sigma)


@pytest.mark.parametrize("config", [SD3, WAN, DYNAMIC, SD15_PNDM, SD21_DDIM, DPM_KARRAS])
def test_other_noise_is_left_alone(tmp_path: Path, config: Config) -> None:
    assert plain(schedule_of(tmp_path, config), 20).scale == 1


@pytest.mark.parametrize("name", LARGE)
def test_a_given_shift_overrides(tmp_path: Path, name: str) -> None:
    config, facts = LARGE[name]
    made = plain(schedule_of(tmp_path, config, **facts), 4, CANVAS, shift=2.0)
    assert made.shift == 2
    assert made.levels[1].sigma < shifted(0.76, 2.0)


@pytest.mark.parametrize("name", LARGE)
def test_a_restart_begins_exactly_at_its_sigma(tmp_path: Path, name: str) -> None:
    config, facts = LARGE[name]
    found = sigmas(plain(schedule_of(tmp_path, config, **facts), 7, CANVAS, start=0.45))
    assert len(found) == 8
    assert found[0] == pytest.approx(0.45)
    assert found[-1] == 0
    assert all(before > after for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("config", [SD15_PNDM, SD21_DDIM, SDXL_EULER, SDXL_TURBO, DPM_KARRAS])
def test_a_restart_keeps_its_steps(tmp_path: Path, config: Config) -> None:
    schedule = schedule_of(tmp_path, config)
    made, whole = plain(schedule, 8, start=0.4), plain(schedule, 20)
    kept = made.levels[1:] if config is SD15_PNDM else made.levels
    assert kept[1:] == whole.levels[-8:]
    assert made.scale == made.levels[0].sigma


@pytest.mark.parametrize(
    ("config", "num_steps", "strength", "kept"),
    [
        (SD3, 28, 0.6, 17),
        (SD3, 28, 0.01, 1),
        (DYNAMIC, 20, 0.5, 10),
        (WAN, 28, 0.6, 16),
        (SDXL_EULER, 30, 0.3, 9),
        (SD21_DDIM, 7, 0.99, 6),
    ],
)
def test_strength_keeps_the_last_steps_that_stock_pipelines_keep(
    tmp_path: Path, config: Config, num_steps: int, strength: float, kept: int
) -> None:
    schedule = schedule_of(tmp_path, config)
    part = plain(schedule, num_steps, strength=strength)
    assert len(part.levels) == kept + 1
    assert part.levels == plain(schedule, num_steps).levels[-kept - 1 :]
    assert part.scale == part.levels[0].sigma


def test_strength_repeats_the_second_level_of_those_left(tmp_path: Path) -> None:
    made = plain(schedule_of(tmp_path, SD15_PNDM), 5, strength=0.6)
    assert [level.timestep for level in made.levels] == [401, 201, 201, 1, 0]


@pytest.mark.parametrize(
    ("config", "asked", "hint"),
    [
        (SD3, {"num_steps": 0}, "1 or more"),
        (SD3, {"start": 0.0}, "above 0"),
        (SD3, {"start": 1.5}, "at most 1"),
        (SD3, {"strength": 0.0}, "above 0"),
        (SD3, {"strength": math.nan}, "at most 1"),
        (SD3, {"shift": -1.0}, "above 0"),
        (SDXL_EULER, {"shift": 3.0}, "no timestep shift"),
        (SDXL_EULER, {"num_steps": 1001}, "at most 1000"),
        (SDXL_EULER, {"strength": 0.03}, "strength 0.036 or more, or 34 steps or more"),
        ({**SDXL_EULER, "sigma_min": "x", "use_karras_sigmas": True}, {}, "sigma_min is 'x'"),
        ({**SDXL_EULER, "timestep_spacing": "x"}, {}, "cannot use its own options"),
        (
            {**SD21_DDIM, "prediction_type": "epsilon", **ZERO_SNR},
            {},
            "v_prediction works",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_stepped_is_refused(
    tmp_path: Path, config: Config, asked: dict[str, Any], hint: str
) -> None:
    wanted = {"num_steps": 28, **asked}
    with pytest.raises((PlanError, ModelError), match=hint):
        plain(schedule_of(tmp_path, config), **wanted)


@pytest.mark.parametrize("num_steps", [3, 28, 50, 1000])
def test_the_strength_that_an_error_names_works(tmp_path: Path, num_steps: int) -> None:
    schedule = schedule_of(tmp_path, WAN)
    with pytest.raises(PlanError, match="or more, or") as caught:
        plain(schedule, num_steps, strength=1e-9)
    named = float(str(caught.value).split("none; strength ")[1].split()[0])
    assert len(plain(schedule, num_steps, strength=named).levels) == 2


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"_class_name": "LMSDiscreteScheduler"}, "knows DDIMScheduler"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "knows DDIMScheduler"),
        ({}, "no scheduler"),
        (stable_diffusion("PNDM"), "skip_prk_steps"),
        ({**DPM_KARRAS, "algorithm_type": "dpmsolver"}, r"dpmsolver\+\+"),
        ({**DPM_KARRAS, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "1 or 2 works"),
        ({**DPM_KARRAS, "thresholding": True}, "thresholding is True"),
        ({**WAN, "predict_x0": False}, "predict_x0 is False"),
        ({**WAN, "use_karras_sigmas": True}, "use_flow_sigmas with use_karras_sigmas"),
        ({**WAN, "final_sigmas_type": "sigma_min"}, "final_sigmas_type sigma_min"),
        ({**SD3, "invert_sigmas": True}, "invert_sigmas"),
        ({**SD3, "stochastic_sampling": True}, "stochastic_sampling"),
        ({**SDXL_EULER, "prediction_type": "edm"}, "prediction_type is 'edm'"),
    ],
    ids=str,
)
def test_an_unknown_scheduler_or_option_is_refused(
    tmp_path: Path, config: Config, hint: str
) -> None:
    with pytest.raises(ModelError, match=hint):
        schedule_of(tmp_path, config)


@pytest.mark.parametrize("config", [SD3, WAN, DYNAMIC, SDXL_EULER, DPM_KARRAS, SD15_PNDM])
def test_null_is_what_is_not_stated(tmp_path: Path, config: Config) -> None:
    for name in sorted(STATED):
        without = {key: value for key, value in config.items() if key != name}
        expected = plain(schedule_of(tmp_path, without), 5)
        assert plain(schedule_of(tmp_path, {**config, name: None}), 5) == expected, name


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        read_schedule(tmp_path)
    schedule_of(tmp_path, SD3)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_schedule(tmp_path)
    file.write_text(json.dumps([1]))
    with pytest.raises(ModelError, match="holds list"):
        read_schedule(tmp_path)


@pytest.mark.parametrize(
    ("config", "solver", "flow", "prediction"),
    [
        (SD3, "euler", True, "velocity"),
        (WAN, "unipc", True, "velocity"),
        (SD21_DDIM, "euler", False, "v_prediction"),
        (SD15_PNDM, "plms", False, "epsilon"),
        (SDXL_TURBO, "ancestral", False, "epsilon"),
        (DPM_KARRAS, "dpm", False, "epsilon"),
        ({**SDXL_EULER, "prediction_type": "original_sample"}, "euler", False, "sample"),
    ],
)
def test_a_config_says_how_to_step(
    tmp_path: Path, config: Config, solver: str, flow: bool, prediction: str
) -> None:
    found = schedule_of(tmp_path, config)
    assert (found.solver, found.flow, found.prediction) == (solver, flow, prediction)
    assert found.options == config


def test_a_flow_table_needs_neither_torch_nor_diffusers(tmp_path: Path) -> None:
    schedule_of(tmp_path, WAN)
    code = (
        "import sys, pathlib; "
        "from frieze.renderer.checkpoints.scheduler_config import read_schedule; "
        "from frieze.renderer.sampling.schedule_table import table;"
        f"schedule = read_schedule(pathlib.Path({str(tmp_path)!r}));"
        "table(schedule, 5, tokens=9, training_tokens=9);"
        "print(*(sys.modules.keys() & {'torch', 'diffusers'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
