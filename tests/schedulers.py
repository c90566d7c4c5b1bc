"""Scheduler configs of published checkpoints, as their scheduler_config.json has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frieze.renderer.schedules import Schedule, read_schedule

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


def schedule_of(folder: Path, config: Config, **facts: Any) -> Schedule:
    """What `read_schedule` makes of a model folder with that config."""
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return read_schedule(folder, **facts)
