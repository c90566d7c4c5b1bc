"""Noise levels of a checkpoint's scheduler, as a table from most noise to least.

Everywhere x = alpha x0 + sigma eps. Rectified flow has alpha = 1 - sigma, all else alpha^2 +
sigma^2 = 1; diffusers' "variance exploding" coordinates (x0 + s eps) are divided by sqrt(1 + s^2),
so that a network always gets x as it is. Flow tables are our own formulas (shifts.py), for the
shift must be governed beyond the trained size; all others are read out of diffusers' schedulers.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, PlanError
from .library_errors import as_model_error
from .model_configs import SchedulerConfig, index_of, parse
from .model_files import read_json
from .shifts import alpha_for, even_sigmas, flow_sigmas

if TYPE_CHECKING:
    from torch import Tensor

# Scheduler classes of diffusers, and the solver in sampling.py that steps as they do.
SOLVER_OF = {
    "DDIMScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpm",
    "EulerAncestralDiscreteScheduler": "ancestral",
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "euler",
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
    "prediction_type": tuple(PREDICTED),
    "solver_p": (None, [None, None]),
    "stochastic_sampling": (False, None),
    "thresholding": (False, None),
    "time_shift_type": ("exponential", "linear"),
    "variance_type": (None, "fixed_small", "fixed_large"),
}
# How galleries call the steps of each scheduler class; DPM-Solver's are called by their order.
CALLED = {
    "DDIMScheduler": "DDIM",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@dataclass(frozen=True)
class Level:
    """One noise level; `timestep` is what the network is told, on the scheduler's own scale."""

    timestep: float
    alpha: float
    sigma: float


@dataclass(frozen=True)
class Schedule:
    """Facts of scheduler_config.json.

    `solver` is a key of `sampling.SOLVERS`; `prediction` is velocity, epsilon, v_prediction or
    sample; `options` is the config. `explicit_sigmas` and `mu`: see `read_schedule`.
    """

    solver: str
    flow: bool
    prediction: str
    options: Mapping[str, Any]
    explicit_sigmas: bool = False
    mu: str | None = None


@dataclass(frozen=True)
class Table:
    """Falling noise: step i goes from levels[i] to levels[i + 1].

    `scale` multiplies the initial noise; `shift` is the timestep shift alpha, None where there
    is none.
    """

    levels: tuple[Level, ...]
    scale: float
    shift: float | None


def read_schedule(
    folder: Path,
    *,
    explicit_sigmas: bool = False,
    mu: str | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Schedule:
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
    options = {**read_json(path), **(fixed or {})}
    parse(SchedulerConfig, options, path)
    assert mu in (None, "flux2")
    name = _class_name(folder, options)
    options["_class_name"] = name
    if name not in SOLVER_OF:
        known = ", ".join(sorted(SOLVER_OF))
        raise ModelError(f"{path} names {name or 'no scheduler'}; Frieze knows {known}")
    flow = name.startswith("FlowMatch") or bool(options.get("use_flow_sigmas"))
    _check_options(path, name, flow, options)
    fallback = "flow_prediction" if name.startswith("FlowMatch") else "epsilon"
    prediction = PREDICTED[options.get("prediction_type", fallback)]
    return Schedule(SOLVER_OF[name], flow, prediction, options, explicit_sigmas, mu)


def _class_name(folder: Path, options: Mapping[str, Any]) -> str:
    """A pipeline makes the scheduler that its index names, whatever the config was saved from."""
    index = folder / "model_index.json"
    named = index_of(folder).parts.get("scheduler") if index.is_file() else None
    return str((named and named[-1]) or options.get("_class_name", ""))


def _check_options(path: Path, name: str, flow: bool, options: Mapping[str, Any]) -> None:
    for option, allowed in ALLOWED.items():
        if option in options and options[option] not in allowed:
            known = " or ".join(json.dumps(value) for value in allowed)
            raise ModelError(f"{path}: {option} is {options[option]!r}; Frieze knows {known}")
    if name == "PNDMScheduler" and not options.get("skip_prk_steps", False):
        raise ModelError(f"{path}: skip_prk_steps is false; Frieze knows true")
    if name == "DDIMScheduler" and options.get("clip_sample", True):
        raise ModelError(f"{path}: clip_sample is true, which is for pixels; Frieze knows false")
    if options.get("algorithm_type") == "sde-dpmsolver++" and options.get("solver_order", 2) > 2:
        raise ModelError(f"{path}: sde-dpmsolver++ of order 3; solver_order 1 or 2 works")
    if flow and not name.startswith("FlowMatch"):
        spaced = [key for key in SPACINGS if options.get(key)]
        if spaced or options.get("final_sigmas_type", "zero") != "zero":
            odd = " and ".join(spaced) or "final_sigmas_type " + options["final_sigmas_type"]
            raise ModelError(f"{path}: use_flow_sigmas with {odd}; without it works")


def sampler(schedule: Schedule) -> str:
    """The name of a schedule's steps and spacing as galleries know it: DPM++ 2M Karras."""
    options, name = schedule.options, CALLED.get(schedule.options["_class_name"], "")
    if not name and options.get("algorithm_type") == "deis":
        name = "DEIS"
    elif not name:
        is_noisy = options.get("algorithm_type") == "sde-dpmsolver++"
        name = f"DPM++ {options.get('solver_order', 2)}M" + (" SDE" if is_noisy else "")
    spaced = [key.split("_")[1].capitalize() for key in SPACINGS if options.get(key)]
    return " ".join([name, *spaced])


def x0_from(prediction: str, x: Tensor, output: Tensor, level: Level) -> Tensor:
    """The clean latents that a network's output means at a level (arXiv 2202.00512, app. D).

    `prediction` is a `Schedule.prediction`; velocity is eps - x0 (arXiv 2209.03003).
    """
    match prediction:
        case "velocity":
            return x - level.sigma * output
        case "epsilon":
            return (x - level.sigma * output) / level.alpha
        case "v_prediction":
            return level.alpha * x - level.sigma * output
        case "sample":
            return output
    raise AssertionError(prediction)


def table(
    schedule: Schedule,
    num_steps: int,
    *,
    tokens: int,
    training_tokens: int,
    shift: float | None = None,
    start: float = 1.0,
    strength: float = 1.0,
) -> Table:
    """The noise levels of a stage of `num_steps` steps on a canvas of so many tokens.

    `shift` overrides the timestep shift of flow models, which else is `shifts.alpha_for`'s.
    `start`, of a stage that begins from an enlarged picture: num_steps steps remain, from that
    sigma (flow) or that fraction of the timesteps (others). `strength`, of drawing over a
    picture: the last steps that the stock pipeline would keep. PLMS evaluates one level twice,
    so it has a step more. Raises `PlanError` for what is out of range.
    """
    _check_request(schedule, num_steps, shift, start, strength)
    alpha = None
    if schedule.flow:
        alpha = shift or alpha_for(schedule, tokens, training_tokens, num_steps)
        if not 1e-4 <= alpha <= 1e6:
            name = schedule.options["_class_name"]
            raise ModelError(f"{name}'s options make a timestep shift of {alpha:g}; give one")
    if alpha is not None and not any(schedule.options.get(key) for key in SPACINGS):
        levels, scale = _flow_levels(schedule, num_steps, alpha, start), 1.0
    else:
        levels, scale = _stock_levels(schedule, max(num_steps, round(num_steps / start)), alpha)
        levels = levels[-num_steps - 1 :]
    kept = _num_kept(schedule, num_steps, strength)
    levels = levels[-kept - 1 :]
    if start < 1 or strength < 1:
        scale = levels[0].sigma
    if schedule.solver == "plms" and kept > 1:
        # The second level is reached twice: the second time by the mean of both levels' noise.
        levels = [*levels[:2], *levels[1:]]
    _check_levels(schedule, num_steps, levels)
    return Table(tuple(levels), scale, alpha)


def _check_request(
    schedule: Schedule, num_steps: int, shift: float | None, start: float, strength: float
) -> None:
    if num_steps < 1:
        raise PlanError(f"{num_steps} steps; 1 or more works")
    for name, value in (("start", start), ("strength", strength)):
        if not 0 < value <= 1:
            raise PlanError(f"{name} is {value}; above 0 and at most 1 works")
    if shift is not None and not schedule.flow:
        name = schedule.options["_class_name"]
        raise PlanError(f"shift is {shift}, but {name} has no timestep shift; leave it out")
    if shift is not None and not 0 < shift < math.inf:
        raise PlanError(f"shift is {shift}; a number above 0 works")
    most = int(schedule.options.get("num_train_timesteps", 1000) * start)
    if not schedule.flow and num_steps > most:
        raise PlanError(f"{num_steps} steps from {start:g} of the timesteps; at most {most} work")


def _num_kept(schedule: Schedule, num_steps: int, strength: float) -> int:
    """Steps left at a strength: stock pipelines round up for flow Euler and down for others."""
    if schedule.options["_class_name"].startswith("FlowMatch"):
        return num_steps - int(max(num_steps - num_steps * strength, 0))
    kept = min(int(num_steps * strength), num_steps)
    if kept == 0:
        least = math.ceil(1000 / num_steps) / 1000
        raise PlanError(
            f"strength {strength} of {num_steps} steps leaves none; strength {least:g} or more, "
            f"or {math.ceil(1 / strength)} steps or more, would work"
        )
    return kept


def _check_levels(schedule: Schedule, num_steps: int, levels: Sequence[Level]) -> None:
    if schedule.prediction == "epsilon" and levels[0].alpha == 0:
        raise PlanError("at pure noise a prediction of the noise says nothing; v_prediction works")
    if not all(math.isfinite(level.sigma) and math.isfinite(level.timestep) for level in levels):
        name = schedule.options["_class_name"]
        raise ModelError(f"{name}'s options make noise levels that are no numbers")
    ratios = [level.sigma / level.alpha if level.alpha else math.inf for level in levels]
    if schedule.options.get("final_sigmas_type") == "sigma_min" and any(
        schedule.options.get(key) for key in SPACINGS
    ):
        # Such a spacing ends at sigma_min by itself, and diffusers appends it once more: the last
        # step goes nowhere, up to the rounding of float32.
        ratios[-1] = min(ratios[-1], math.nextafter(ratios[-2], 0))
    equal = any(after >= before for before, after in itertools.pairwise(ratios))
    if equal and schedule.solver in ("dpm", "unipc"):
        raise PlanError(f"{num_steps} steps make two noise levels one; fewer steps work")


def _flow_levels(schedule: Schedule, num_steps: int, alpha: float, start: float) -> list[Level]:
    """Levels of rectified flow, their sigmas rounded to float32 as diffusers keeps them."""
    import numpy as np

    sigmas = flow_sigmas(even_sigmas(schedule, num_steps), alpha, start)
    terminal = schedule.options.get("shift_terminal")
    if terminal and max(terminal, sigmas[-1]) < sigmas[0]:
        # The first sigma stays and the last becomes the terminal one; the rest in proportion.
        factor = (sigmas[0] - terminal) / (sigmas[0] - sigmas[-1])
        sigmas = [sigmas[0] - factor * (sigmas[0] - sigma) for sigma in sigmas]
    length = schedule.options.get("num_train_timesteps", 1000)
    multistep = schedule.solver != "euler"
    if multistep and sigmas[0] > 1 - 1e-6:
        # A multistep solver takes the logarithm of alpha.
        sigmas[0] -= 1e-6
    levels = []
    for exact in sigmas:
        sigma = float(np.float32(exact))
        # diffusers' multistep schedulers tell the network whole timesteps.
        timestep = int(exact * length) if multistep else float(np.float32(sigma * length))
        levels.append(Level(float(timestep), 1 - sigma, sigma))
    return [*levels, Level(0.0, 1.0, 0.0)]


def _stock_levels(
    schedule: Schedule, num_steps: int, alpha: float | None
) -> tuple[list[Level], float]:
    """Levels and noise scale of diffusers' own scheduler, for all that is not a plain flow table.

    DDIM and PLMS go from each timestep to the next in the table. diffusers steps back by
    num_train_timesteps // N, which is the same wherever "leading" or an even N spaces them.
    """
    scheduler = _stock_scheduler(schedule, num_steps, alpha)
    times = [float(t) for t in scheduler.timesteps]
    if not hasattr(scheduler, "sigmas"):
        distinct = list(dict.fromkeys(times))
        squares = [scheduler.alphas_cumprod[int(t)].item() for t in distinct]
        squares.append(float(scheduler.final_alpha_cumprod))
        pairs = zip([*distinct, 0.0], squares, strict=True)
        return [Level(t, math.sqrt(a), math.sqrt(1 - a)) for t, a in pairs], 1.0
    sigmas = [float(s) for s in scheduler.sigmas]
    pairs = zip([*times, 0.0], sigmas[: len(times) + 1], strict=True)
    if alpha is not None:
        return [Level(t, 1 - s, s) for t, s in pairs], 1.0
    levels = [Level(t, 1 / math.hypot(1, s), s / math.hypot(1, s)) for t, s in pairs]
    # Euler's keep x0 + s eps, and say how much noise that is at the start.
    exploding = schedule.solver in ("euler", "ancestral")
    return levels, float(scheduler.init_noise_sigma) * levels[0].alpha if exploding else 1.0


def _stock_scheduler(schedule: Schedule, num_steps: int, alpha: float | None) -> Any:
    import diffusers

    options, name = dict(schedule.options), schedule.options["_class_name"]
    if alpha is not None:
        options["use_dynamic_shifting"] = False
    with as_model_error(Path(f"{name} of the checkpoint"), "use its own options"):
        with warnings.catch_warnings():
            # Schedulers make arrays of tensors in a way that numpy 2 is about to forbid.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler = getattr(diffusers, name).from_config(options)
            if alpha is None:
                scheduler.set_timesteps(num_steps)
            else:
                scheduler.set_shift(alpha)
                scheduler.set_timesteps(sigmas=even_sigmas(schedule, num_steps))
        return scheduler
