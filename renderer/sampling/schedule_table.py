"""Noise levels of a checkpoint's scheduler, as a table from most noise to least.

Everywhere x = alpha x0 + sigma eps. Rectified flow has alpha = 1 - sigma, all else alpha^2 +
sigma^2 = 1; diffusers' "variance exploding" coordinates (x0 + s eps) are divided by sqrt(1 + s^2),
so that a network always gets x as it is. Flow tables are our own formulas (timestep_shift.py),
for the shift must be governed beyond the trained size; all others are read out of diffusers'
schedulers.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError, PlanError
from ..files.library_errors import as_model_error
from ..spec.stage_spec import Spacing
from .noise_levels import SPACINGS, NoiseLevel, NoiseSchedule, Table
from .timestep_shift import alpha_for, even_sigmas, flow_sigmas

# How galleries call the steps of each scheduler class; DPM-Solver's are called by their order.
CALLED = {
    "DDIMScheduler": "DDIM",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "FlowMatchLCMScheduler": "LCM",
    "LCMScheduler": "LCM",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


def sampler(schedule: NoiseSchedule) -> str:
    """The name of a schedule's steps and spacing as galleries know it: DPM++ 2M Karras."""
    options, name = schedule.options, CALLED.get(schedule.options["_class_name"], "")
    if not name and options.get("algorithm_type") == "deis":
        name = "DEIS"
    elif not name:
        is_noisy = options.get("algorithm_type") == "sde-dpmsolver++"
        name = f"DPM++ {options.get('solver_order', 2)}M" + (" SDE" if is_noisy else "")
    spaced = [key.split("_")[1].capitalize() for key in SPACINGS if options.get(key)]
    return " ".join([name, *spaced])


def table(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    tokens: int,
    training_tokens: int,
    shift: float | None = None,
    start: float = 1.0,
    strength: float = 1.0,
    spacing: Spacing = "checkpoint",
) -> Table:
    """The noise levels of a stage of `num_steps` steps on a canvas of so many tokens.

    `shift` overrides the timestep shift of flow models, which else is `timestep_shift`'s.
    `start`, of a stage that begins from an enlarged picture: num_steps steps remain, from that
    sigma (flow) or that fraction of the timesteps (others). `strength`, of drawing over a
    picture: the last steps that the stock pipeline would keep. `spacing` is for flow alone. PLMS
    evaluates one level twice, so it has a step more. Raises `PlanError` for what is out of range.
    """
    _check_request(schedule, num_steps, shift, start, strength)
    alpha = flow_shift(schedule, num_steps, shift, tokens=tokens, training_tokens=training_tokens)
    levels, scale = levels_from(schedule, num_steps, alpha, start, spacing)
    levels = levels[-kept_steps(schedule, num_steps, strength) - 1 :]
    if start < 1 or strength < 1:  # noise is added to a picture
        scale = levels[0].sigma
    levels = evaluated(schedule, levels)
    _check_levels(schedule, num_steps, levels)
    return Table(tuple(levels), scale, alpha)


def flow_shift(
    schedule: NoiseSchedule,
    num_steps: int,
    given: float | None,
    *,
    tokens: int,
    training_tokens: int,
) -> float | None:
    """The timestep shift alpha, as given or as the canvas needs; None where there is none."""
    if not schedule.flow:
        return None
    alpha = given or alpha_for(schedule, tokens, training_tokens, num_steps)
    if not 1e-4 <= alpha <= 1e6:
        name = schedule.options["_class_name"]
        raise ModelError(f"{name}'s options make a timestep shift of {alpha:g}; give one")
    return alpha


def levels_from(
    schedule: NoiseSchedule,
    num_steps: int,
    alpha: float | None,
    start: float,
    spacing: Spacing = "checkpoint",
) -> tuple[list[NoiseLevel], float]:
    """The levels of so many steps from `start` on, and what initial noise is multiplied by.

    Of plain flow they are ours, else the last ones of diffusers' own with that many steps more.
    """
    if alpha is not None and spacing == "even":
        times = [1 - index / num_steps for index in range(num_steps)]
        return flow_levels(schedule, num_steps, alpha, start, times), 1.0
    if alpha is not None and not any(schedule.options.get(key) for key in SPACINGS):
        return flow_levels(schedule, num_steps, alpha, start), 1.0
    if schedule.solver == "lcm" and alpha is None:  # of the steps it was distilled for
        return stock_levels(schedule, num_steps, alpha, start)
    levels, scale = stock_levels(schedule, max(num_steps, round(num_steps / start)), alpha)
    return levels[-num_steps - 1 :], scale


def kept_steps(schedule: NoiseSchedule, num_steps: int, strength: float) -> int:
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


def evaluated(schedule: NoiseSchedule, levels: list[NoiseLevel]) -> list[NoiseLevel]:
    """The levels in the order in which the solver evaluates them.

    PLMS reaches the second twice: the second time by the mean of both levels' noise.
    """
    is_repeated = schedule.solver == "plms" and len(levels) > 2
    return [*levels[:2], *levels[1:]] if is_repeated else levels


def _check_request(
    schedule: NoiseSchedule, num_steps: int, shift: float | None, start: float, strength: float
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
    if schedule.solver == "lcm" and not schedule.flow:
        distilled = schedule.options.get("original_inference_steps", 50)
        if num_steps > int(distilled * start):
            raise PlanError(
                f"{num_steps} steps of LCMScheduler from {start:g} of the timesteps, of which it "
                f"was distilled for {distilled}; at most {int(distilled * start)} work"
            )


def _check_levels(schedule: NoiseSchedule, num_steps: int, levels: Sequence[NoiseLevel]) -> None:
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


def flow_levels(
    schedule: NoiseSchedule,
    num_steps: int,
    alpha: float,
    start: float,
    times: Sequence[float] | None = None,
) -> list[NoiseLevel]:
    """Levels of rectified flow, their sigmas rounded to float32 as diffusers keeps them.

    `times` are those before the shift, the checkpoint's by default.
    """
    import numpy as np

    sigmas = flow_sigmas(times or even_sigmas(schedule, num_steps), alpha, start)
    terminal = schedule.options.get("shift_terminal")
    if terminal and max(terminal, sigmas[-1]) < sigmas[0]:
        # The first sigma stays and the last becomes the terminal one; the rest in proportion.
        factor = (sigmas[0] - terminal) / (sigmas[0] - sigmas[-1])
        sigmas = [sigmas[0] - factor * (sigmas[0] - sigma) for sigma in sigmas]
    length = schedule.options.get("num_train_timesteps", 1000)
    multistep = schedule.solver in ("dpm", "unipc")
    if multistep and sigmas[0] > 1 - 1e-6:
        # A multistep solver takes the logarithm of alpha.
        sigmas[0] -= 1e-6
    levels = []
    for exact in sigmas:
        sigma = float(np.float32(exact))
        # diffusers' multistep schedulers tell the network whole timesteps.
        timestep = int(exact * length) if multistep else float(np.float32(sigma * length))
        levels.append(NoiseLevel(float(timestep), 1 - sigma, sigma))
    return [*levels, NoiseLevel(0.0, 1.0, 0.0)]


def stock_levels(
    schedule: NoiseSchedule, num_steps: int, alpha: float | None, start: float = 1.0
) -> tuple[list[NoiseLevel], float]:
    """Levels and noise scale of diffusers' own scheduler, for all that is not a plain flow table.

    `start` is the part of the timesteps that LCM chooses from.

    DDIM and PLMS go from each timestep to the next in the table. diffusers steps back by
    num_train_timesteps // N, which is the same wherever "leading" or an even N spaces them.
    """
    scheduler = _stock_scheduler(schedule, num_steps, alpha, start)
    times = [float(t) for t in scheduler.timesteps]
    if not hasattr(scheduler, "sigmas"):
        distinct = list(dict.fromkeys(times))
        squares = [scheduler.alphas_cumprod[int(t)].item() for t in distinct]
        # LCM's last step is to no noise, whatever its config says of the last level.
        final = 1.0 if schedule.solver == "lcm" else float(scheduler.final_alpha_cumprod)
        squares.append(final)
        pairs = zip([*distinct, 0.0], squares, strict=True)
        return [NoiseLevel(t, math.sqrt(a), math.sqrt(1 - a)) for t, a in pairs], 1.0
    sigmas = [float(s) for s in scheduler.sigmas]
    pairs = zip([*times, 0.0], sigmas[: len(times) + 1], strict=True)
    if alpha is not None:
        return [NoiseLevel(t, 1 - s, s) for t, s in pairs], 1.0
    levels = [NoiseLevel(t, 1 / math.hypot(1, s), s / math.hypot(1, s)) for t, s in pairs]
    # Euler's keep x0 + s eps, and say how much noise that is at the start.
    exploding = schedule.solver in ("euler", "ancestral")
    return levels, float(scheduler.init_noise_sigma) * levels[0].alpha if exploding else 1.0


def options_of(name: str) -> set[str]:
    """The options that a scheduler class takes, but for what its network predicts."""
    import inspect

    import diffusers

    kind = getattr(diffusers, name)
    return set(inspect.signature(kind.__init__).parameters) - {"self", "prediction_type"}


def trained_levels(schedule: NoiseSchedule) -> list[NoiseLevel]:
    """The levels that a model of no flow was trained at, from least noise to most."""
    import diffusers

    name = schedule.options["_class_name"]
    with as_model_error(Path(f"{name} of the checkpoint"), "use its own options"):
        squares = getattr(diffusers, name).from_config(dict(schedule.options)).alphas_cumprod
    pairs = enumerate(squares.tolist())
    return [NoiseLevel(float(t), math.sqrt(a), math.sqrt(1 - a)) for t, a in pairs]


def _stock_scheduler(
    schedule: NoiseSchedule, num_steps: int, alpha: float | None, start: float
) -> Any:
    import diffusers

    options, name = dict(schedule.options), schedule.options["_class_name"]
    if alpha is not None:
        options["use_dynamic_shifting"] = False
    with as_model_error(Path(f"{name} of the checkpoint"), "use its own options"):
        with warnings.catch_warnings():
            # Schedulers make arrays of tensors in a way that numpy 2 is about to forbid.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler = getattr(diffusers, name).from_config(options)
            if schedule.solver == "lcm" and alpha is None:
                scheduler.set_timesteps(num_steps, strength=start)
            elif alpha is None:
                scheduler.set_timesteps(num_steps)
            else:
                scheduler.set_shift(alpha)
                scheduler.set_timesteps(sigmas=even_sigmas(schedule, num_steps))
        return scheduler
