"""scheduler_config.json as a noise schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, PlanError, shown
from ..sampling.noise_levels import SPACINGS, NoiseSchedule
from ..sampling.schedule_table import options_of
from .configs import SchedulerConfig, index_of, parse, read_json

# Scheduler classes of diffusers, and the solver in sampling/solvers.py that steps as they do.
SOLVER_OF = {
    "DDIMScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpm",
    "EulerAncestralDiscreteScheduler": "ancestral",
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchLCMScheduler": "lcm",
    "LCMScheduler": "lcm",
    "PNDMScheduler": "plms",
    "UniPCMultistepScheduler": "unipc",
}


# What their networks predict, in our words.
PREDICTED = {
    "epsilon": "epsilon",
    "flow_prediction": "velocity",
    "original_sample": "sample",
    "sample": "sample",
    "v_prediction": "v_prediction",
}


# Options that change what a step is and that no solver of ours knows: what they may be.
ALLOWED: Mapping[str, tuple[object, ...]] = {
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"),
    "invert_sigmas": (False, None),
    "predict_x0": (True,),
    "scale_factors": (None, []),
    "prediction_type": tuple(PREDICTED),
    "solver_p": (None, [None, None]),
    "stochastic_sampling": (False, None),
    "thresholding": (False, None),
    "time_shift_type": ("exponential", "linear"),
    "variance_type": (None, "fixed_small", "fixed_large"),
}

# Numbers and words that a scheduler reckons with: null for one says as little as no word of it.
STATED = frozenset(
    {
        *("beta_start", "beta_end", "shift", "flow_shift", "base_shift", "max_shift"),
        *("solver_order", "solver_type", "final_sigmas_type", "timestep_spacing", "steps_offset"),
    }
)


def read_schedule(
    folder: Path,
    *,
    explicit_sigmas: bool = False,
    mu: str | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> NoiseSchedule:
    """The schedule of a model folder: scheduler_config.json, as the class that its index names.

    Stock pipelines differ in what they pass to their flow scheduler, which no file records; a
    family says it here. `explicit_sigmas`: the pipeline passes linspace(1, 1/N, N) as sigmas
    (FLUX, FLUX.2, Qwen-Image, Z-Image); else it leaves the spacing to the scheduler (SD3, Wan).
    `mu` "flux2": the pipeline computes mu by FLUX.2's fit to tokens and steps; None: by the
    config's line from base_shift to max_shift. Other schedulers ignore both. `fixed`: options that
    the pipeline sets whatever the file says, where the scheduler has them.
    Raises `ModelError`: no such file, a scheduler class or an option that is not known.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    options = _stated({**read_json(path), **(fixed or {})})
    parse(SchedulerConfig, options, path)
    assert mu in (None, "flux2")
    name = _class_name(folder, options)
    options["_class_name"] = name
    if name not in SOLVER_OF:
        known = ", ".join(sorted(SOLVER_OF))
        raise ModelError(f"{path} names {name or 'no scheduler'}; Frieze knows {known}")
    flow = name.startswith("FlowMatch") or bool(options.get("use_flow_sigmas"))
    _check_options(str(path), name, flow, options)
    fallback = "flow_prediction" if name.startswith("FlowMatch") else "epsilon"
    prediction = PREDICTED[options.get("prediction_type", fallback)]
    return NoiseSchedule(SOLVER_OF[name], flow, prediction, options, explicit_sigmas, mu)


def other_schedule(
    schedule: NoiseSchedule, name: str | None, changes: Mapping[str, Any]
) -> NoiseSchedule:
    """What another scheduler of diffusers makes of a checkpoint's config, or this one of changes.

    As `NAME.from_config(pipeline.scheduler.config, **changes)`. Raises `PlanError` for a class that
    steps another kind of model, and for options that it has not or that nobody here knows.
    """
    if name is None and not changes:
        return schedule
    name = name or str(schedule.options["_class_name"])
    fits = [each for each in SOLVER_OF if each.startswith("FlowMatch") == schedule.flow]
    if name not in fits and name != schedule.options["_class_name"]:
        kind = "a rectified flow" if schedule.flow else "no rectified flow"
        raise PlanError(f"scheduler {shown(name)}: this model is {kind}; use {', '.join(fits)}")
    known = options_of(name)
    for option, value in changes.items():
        if option not in known or option == "prediction_type":
            given = f"{shown(option)} = {shown(value)}"
            raise PlanError(f"scheduler_options {given}: {name} has {', '.join(sorted(known))}")
    options = _stated({**schedule.options, **changes, "_class_name": name})
    if name.startswith("FlowMatch") and "flow_shift" in options:
        options["shift"] = options.pop("flow_shift")
    where = "scheduler_options"
    try:
        parse(SchedulerConfig, changes, Path(where))
        _check_options(where, name, schedule.flow, options)
    except ModelError as error:
        raise PlanError(str(error)) from None
    return replace(schedule, solver=SOLVER_OF[name], options=options)


def _stated(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: value for k, value in options.items() if value is not None or k not in STATED}


def _class_name(folder: Path, options: Mapping[str, Any]) -> str:
    """A pipeline makes the scheduler that its index names, whatever the config was saved from."""
    index = folder / "model_index.json"
    named = index_of(folder).parts.get("scheduler") if index.is_file() else None
    return str((named and named[-1]) or options.get("_class_name", ""))


def _check_options(path: str, name: str, flow: bool, options: Mapping[str, Any]) -> None:
    for option, allowed in ALLOWED.items():
        if option in options and options[option] not in allowed:
            known = " or ".join(json.dumps(value) for value in allowed)
            raise ModelError(f"{path}: {option} is {options[option]!r}; Frieze knows {known}")
    if name == "PNDMScheduler" and not options.get("skip_prk_steps", False):
        raise ModelError(f"{path}: skip_prk_steps is false; Frieze knows true")
    clips = {"DDIMScheduler": True, "LCMScheduler": False}  # unless the config says otherwise
    if name in clips and options.get("clip_sample", clips[name]):
        raise ModelError(f"{path}: clip_sample is true, which is for pixels; Frieze knows false")
    if options.get("algorithm_type") == "sde-dpmsolver++" and options.get("solver_order", 2) > 2:
        raise ModelError(f"{path}: sde-dpmsolver++ of order 3; solver_order 1 or 2 works")
    if flow and not name.startswith("FlowMatch"):
        spaced = [key for key in SPACINGS if options.get(key)]
        if spaced or options.get("final_sigmas_type", "zero") != "zero":
            odd = " and ".join(spaced) or "final_sigmas_type " + options["final_sigmas_type"]
            raise ModelError(f"{path}: use_flow_sigmas with {odd}; without it works")
