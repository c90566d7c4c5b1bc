"""Scheduler configs of published checkpoints, as their scheduler_config.json has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

from frieze.renderer.checkpoints.scheduler_config import read_schedule
from frieze.renderer.sampling.noise_levels import NoiseSchedule, Table
from frieze.renderer.sampling.schedule_table import table

Config = Mapping[str, Any]

STABLE_DIFFUSION: Config = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
}
DYNAMIC: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
SD3: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
WAN: Config = {
    "_class_name": "UniPCMultistepScheduler",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "disable_corrector": [],
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "solver_p": None,
    "solver_type": "bh2",
    "thresholding": False,
    "timestep_spacing": "linspace",
    "use_flow_sigmas": True,
}
QWEN: Config = {
    **DYNAMIC,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
}


def stable_diffusion(name: str, **options: Any) -> Config:
    """A config over Stable Diffusion's betas."""
    return {"_class_name": f"{name}Scheduler", **STABLE_DIFFUSION, **options}


SD15_PNDM = stable_diffusion("PNDM", skip_prk_steps=True, set_alpha_to_one=False, clip_sample=False)
SD21_DDIM = stable_diffusion(
    "DDIM", prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False
)
SDXL_EULER = stable_diffusion("EulerDiscrete", timestep_spacing="leading")
SDXL_TURBO = stable_diffusion("EulerAncestralDiscrete", timestep_spacing="trailing")
DPM_KARRAS = stable_diffusion(
    "DPMSolverMultistep", algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True
)


def schedule_of(folder: Path, config: Config, **facts: Any) -> NoiseSchedule:
    """What `read_schedule` makes of a model folder with that config."""
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return read_schedule(folder, **facts)


TRAINED = 4096
EXPLICIT = {"explicit_sigmas": True}
FLUX2 = {**EXPLICIT, "mu": "flux2"}
# Tokens of 4096 x 4096 pixels.
CANVAS = 65536
LARGE: dict[str, tuple[Config, dict[str, Any]]] = {
    "FLUX.1": (DYNAMIC, EXPLICIT),
    "FLUX.2": (DYNAMIC, FLUX2),
    "Qwen-Image": (QWEN, EXPLICIT),
    "SD3": (SD3, {}),
    "Wan": (WAN, {}),
}


def sigmas(made: Table) -> list[float]:
    return [level.sigma for level in made.levels]


def plain(schedule: NoiseSchedule, num_steps: int, tokens: int = TRAINED, **asked: Any) -> Table:
    return table(schedule, num_steps, tokens=tokens, training_tokens=TRAINED, **asked)


def stock_flow(config: Config, num_steps: int, explicit: bool, mu: float | None = None) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    wanted: dict[str, Any] = {"num_inference_steps": num_steps}
    if explicit:
        wanted = {"sigmas": np.linspace(1.0, 1 / num_steps, num_steps)}
    scheduler.set_timesteps(**wanted, mu=mu)
    return scheduler
