"""Solvers: one step from a noise level to the next, whatever the network predicted.

A solver sees x = alpha x0 + sigma eps and the network's x0, never velocity or noise, and acts
element by element, so it needs no other rank. lambda = log(alpha / sigma) throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .noise_levels import NoiseLevel, NoiseSchedule

if TYPE_CHECKING:
    from torch import Tensor

# In lambda, the logarithm of alpha / sigma: a step that is shorter is one to the same level, told
# apart by the rounding of float32 alone.
NOWHERE = 1e-5

History = tuple["Tensor", ...]
Draw = Callable[[], "Tensor"]
# (step index in this stage, levels, x, x0, history, draw noise) -> (x at the next level, history)
Step = Callable[
    [int, Sequence[NoiseLevel], "Tensor", "Tensor", History, Draw | None], "tuple[Tensor, History]"
]


@dataclass(frozen=True)
class Solver:
    """How to step, and how much is remembered between steps.

    `num_history` tensors like x are kept, zeros at first; which of them count follows from the
    step's index, so that x, history and index are all of the state. `needs_noise`: steps draw.
    """

    num_history: int
    needs_noise: bool
    step: Step


def solver(schedule: NoiseSchedule) -> Solver:
    """The solver that steps as diffusers' scheduler of that config does."""
    return SOLVERS[schedule.solver](schedule)


def noised(clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """x = alpha x0 + sigma eps."""
    return level.alpha * clean + level.sigma * noise


def _euler(schedule: NoiseSchedule) -> Solver:
    """First order: Euler of rectified flow, Euler in x / alpha, and DDIM are this one formula.

    x' = alpha' x0 + sigma' eps with eps = (x - alpha x0) / sigma (DDIM, arXiv 2010.02502, eq. 12
    at eta 0; Karras et al., arXiv 2206.00364, Algorithm 2 without churn).
    """

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        _: Draw | None,
    ) -> tuple[Tensor, History]:
        return _moved(x, x0, levels[index], levels[index + 1].alpha, levels[index + 1].sigma), ()

    return Solver(0, False, step)


def _moved(x: Tensor, x0: Tensor, level: NoiseLevel, alpha: float, sigma: float) -> Tensor:
    kept = sigma / level.sigma
    return kept * x + (alpha - kept * level.alpha) * x0


def _ancestral(schedule: NoiseSchedule) -> Solver:
    """Euler down to less noise than is due, then fresh noise (the ancestral step of DDPM, arXiv
    2006.11239, in the coordinates of arXiv 2206.00364).

    With s = sigma / alpha: s_up^2 = s'^2 (s^2 - s'^2) / s^2, s_down = s'^2 / s.
    """

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        draw: Draw | None,
    ) -> tuple[Tensor, History]:
        here, there = levels[index], levels[index + 1]
        s, s_next = here.sigma / here.alpha, there.sigma / there.alpha
        x = _moved(x, x0, here, there.alpha, there.alpha * s_next**2 / s)
        if s_next > 0:
            assert draw is not None
            x = x + there.alpha * s_next * math.sqrt(1 - (s_next / s) ** 2) * draw()
        return x, ()

    return Solver(0, True, step)


def _lcm(schedule: NoiseSchedule) -> Solver:
    """Multistep consistency sampling: to x0, then fresh noise (LCM, arXiv 2310.04378, Algorithm 3).

    x' = alpha' f + sigma' eps with f = c_skip x + c_out x0, whose boundary c_skip = 1 at t = 0:
    c_skip = d^2 / (t^2 + d^2), c_out = t / sqrt(t^2 + d^2), d = 1/2, t ten times the timestep. Of
    rectified flow f is x0.
    """
    scaling = 0.0 if schedule.flow else float(schedule.options.get("timestep_scaling", 10.0))

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        draw: Draw | None,
    ) -> tuple[Tensor, History]:
        here, there = levels[index], levels[index + 1]
        if scaling:
            t = here.timestep * scaling
            x0 = t / math.hypot(t, 0.5) * x0 + 0.25 / (t**2 + 0.25) * x
        if there.sigma == 0:
            return there.alpha * x0, ()
        assert draw is not None
        return there.alpha * x0 + there.sigma * draw(), ()

    return Solver(0, True, step)


def _dpm(schedule: NoiseSchedule) -> Solver:
    """DPM-Solver++, multistep of order 1 to 3 (arXiv 2211.01095, Algorithm 2 and app. A)."""
    options = schedule.options
    order = min(options.get("solver_order", 2), 3)
    noisy = options.get("algorithm_type") == "sde-dpmsolver++"
    heun = options.get("solver_type") == "heun"

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        draw: Draw | None,
    ) -> tuple[Tensor, History]:
        here, there = levels[index], levels[index + 1]
        used = _dpm_order(options, order, index, len(levels) - 1)
        h = _lambda(there) - _lambda(here)
        if abs(h) < NOWHERE:
            return x, (x0, *history)[: order - 1]
        # The stochastic variant decays twice as fast, and makes up for it with noise.
        g = 2 * h if noisy else h
        gain = -there.alpha * math.expm1(-g)
        slope, bend = _differences(index, levels, [x0, *history], used, h)
        x = there.sigma / here.sigma * (math.exp(-h) if noisy else 1) * x + gain * x0
        if slope is not None:
            first = 0.5 * gain if used == 2 and not heun else there.alpha - gain / g
            x = x + first * slope
        if bend is not None:
            x = x + there.alpha * ((-math.expm1(-g) - g) / g**2 + 0.5) * bend
        if noisy and there.sigma > 0:
            assert draw is not None
            x = x + there.sigma * math.sqrt(-math.expm1(-2 * h)) * draw()
        return x, (x0, *history)[: order - 1]

    return Solver(order - 1, noisy, step)


def _dpm_order(options: Mapping[str, Any], order: int, index: int, num_steps: int) -> int:
    """Few steps end with lower orders, and a step to no noise is always of first order."""
    short = options.get("lower_order_final", True) and num_steps < 15
    to_zero = options.get("final_sigmas_type", "zero") == "zero"
    left = num_steps - index
    if left == 1 and (options.get("euler_at_final", False) or short or to_zero):
        return 1
    return min(order, index + 1, 2 if left == 2 and short else order)


def _differences(
    index: int, levels: Sequence[NoiseLevel], known: Sequence[Tensor], order: int, h: float
) -> tuple[Tensor | None, Tensor | None]:
    """h x0' and h^2 x0'' in lambda, backwards from the newest of `known`; None beyond the order."""
    if order == 1:
        return None, None
    times = [_lambda(levels[i]) for i in range(index, index - order, -1)]
    r0 = (times[0] - times[1]) / h
    near = (known[0] - known[1]) / r0
    if order == 2:
        return near, None
    r1 = (times[1] - times[2]) / h
    far = (known[1] - known[2]) / r1
    return near + r0 / (r0 + r1) * (near - far), (near - far) / (r0 + r1)


def _unipc(schedule: NoiseSchedule) -> Solver:
    """UniPC: a predictor, and a corrector that uses the next x0 at once (arXiv 2302.04867).

    History: the x that the last step left, and the x0 of the last `order` steps, newest first.
    """
    options = schedule.options
    order = options.get("solver_order", 2)
    uncorrected = options.get("disable_corrector") or ()
    bh1 = options.get("solver_type", "bh2") == "bh1"
    to_zero = options.get("final_sigmas_type", "zero") == "zero"

    def order_at(index: int, num_steps: int) -> int:
        left = num_steps - index
        # A step to no noise is infinitely long in lambda, where only the first order is finite.
        lower = options.get("lower_order_final", True) or (left == 1 and to_zero)
        return min(order, index + 1, left if lower else order)

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        _: Draw | None,
    ) -> tuple[Tensor, History]:
        num_steps = len(levels) - 1
        if index > 0 and index - 1 not in uncorrected:
            used = order_at(index - 1, num_steps)
            x = _uni(levels, index - 1, history[0], history[1:], used, bh1, x0)
        known = (x0, *history[1:])[:order]
        moved = _uni(levels, index, x, known, order_at(index, num_steps), bh1, None)
        return moved, (x, *known)

    return Solver(order + 1, False, step)


def _uni(
    levels: Sequence[NoiseLevel],
    index: int,
    x: Tensor,
    known: Sequence[Tensor],
    order: int,
    bh1: bool,
    arrived: Tensor | None,
) -> Tensor:
    """From levels[index] to the next: UniP, or UniC where x0 `arrived` there (eq. 3 and 9).

    Weights rho solve R rho = b, R_kj = r_j^(k - 1), b_k = k! phi_(k + 1)(-h) / B(-h).
    """
    import numpy as np

    here, there = levels[index], levels[index + 1]
    h = _lambda(there) - _lambda(here)
    if abs(h) < NOWHERE:
        return x
    x0 = known[0]
    moved = there.sigma / here.sigma * x - there.alpha * math.expm1(-h) * x0
    ratios = [(_lambda(levels[index - j]) - _lambda(here)) / h for j in range(1, order)]
    slopes = [(m - x0) / r for m, r in zip(known[1:], ratios, strict=False)]
    if arrived is not None:
        ratios, slopes = [*ratios, 1.0], [*slopes, arrived - x0]
    if not slopes:
        return moved
    scale, moments = _moments(h, len(slopes), bh1)
    rho = [0.5]
    # Of one unknown the paper takes the limit for small h, 1/2.
    if len(slopes) > 1:
        rho = np.linalg.solve(np.vander(ratios, increasing=True).T, moments).tolist()
    total = sum(weight * slope for weight, slope in zip(rho, slopes, strict=True))
    return moved - there.alpha * scale * total


def _moments(h: float, count: int, bh1: bool) -> tuple[float, list[float]]:
    """B(-h), which is -h or e^-h - 1, and b_1 .. b_count."""
    scale = -h if bh1 else math.expm1(-h)
    phi, factorial, moments = math.expm1(-h) / -h - 1, 1, []
    for k in range(1, count + 1):
        moments.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return scale, moments


def _plms(schedule: NoiseSchedule) -> Solver:
    """Pseudo linear multistep (PNDM, arXiv 2202.09778, eq. 9 and 12) without Runge-Kutta steps.

    Steps 0 and 1 both go from level 0 to level 1: by its noise, then by the mean of both levels'.
    History: x of step 0, and the predictions of three steps, newest first; step 1's is not kept.
    """
    velocity = schedule.prediction == "v_prediction"

    def predicted(x: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
        if velocity:
            return (level.alpha * x - x0) / level.sigma
        return (x - level.alpha * x0) / level.sigma

    def step(
        index: int,
        levels: Sequence[NoiseLevel],
        x: Tensor,
        x0: Tensor,
        history: History,
        _: Draw | None,
    ) -> tuple[Tensor, History]:
        first, *past = history
        here, there = levels[index], levels[index + 1]
        known = [predicted(x, x0, here), *past]
        if index == 1:
            mixed, kept = (known[0] + known[1]) / 2, history
            here, x = levels[0], first
        else:
            weights = ADAMS_BASHFORTH[min(max(index, 1), 4) - 1]
            mixed = weights[0] * known[0]
            for weight, output in zip(weights[1:], known[1:], strict=False):
                mixed = mixed + weight * output
            kept = (x if index == 0 else first, *known[:3])
        if velocity:
            clean = here.alpha * x - here.sigma * mixed
            return _moved(x, clean, here, there.alpha, there.sigma), kept
        ratio = there.alpha / here.alpha
        return ratio * x + (there.sigma - ratio * here.sigma) * mixed, kept

    return Solver(4, False, step)


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _lambda(level: NoiseLevel) -> float:
    """Half the logarithm of the signal-to-noise ratio; infinite without noise."""
    return math.log(level.alpha) - math.log(level.sigma) if level.sigma > 0 else math.inf


SOLVERS: Mapping[str, Callable[[NoiseSchedule], Solver]] = {
    "ancestral": _ancestral,
    "dpm": _dpm,
    "euler": _euler,
    "lcm": _lcm,
    "plms": _plms,
    "unipc": _unipc,
}


def stage_seed(seed: int, stage_index: int) -> int:
    """The seed of a stage's noise: the render's own for the first, far apart for the others."""
    return (seed + stage_index * 0x9E3779B97F4A7C15) % 2**63
