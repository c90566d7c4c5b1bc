"""Multistep solvers: DPM-Solver++, UniPC, and the linear multistep of PNDM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .noise_levels import NoiseLevel, NoiseSchedule
from .solver_step import History, Solver, SolverStep, half_log_snr, moved

if TYPE_CHECKING:
    from torch import Tensor

# In lambda, the logarithm of alpha / sigma: a step that is shorter is one to the same level, told
# apart by the rounding of float32 alone.
NOWHERE = 1e-5

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def dpm(schedule: NoiseSchedule) -> Solver:
    """DPM-Solver++, multistep of order 1 to 3 (arXiv 2211.01095, Algorithm 2 and app. A)."""
    options = schedule.options
    order = min(options.get("solver_order", 2), 3)
    noisy = options.get("algorithm_type") == "sde-dpmsolver++"
    heun = options.get("solver_type") == "heun"

    def step(at: SolverStep) -> tuple[Tensor, History]:
        here, there, x, known = at.here, at.there, at.x, (at.x0, *at.history)
        used = _dpm_order(options, order, at.index, at.num_steps)
        h = half_log_snr(there) - half_log_snr(here)
        if abs(h) < NOWHERE:
            return x, known[: order - 1]
        # The stochastic variant decays twice as fast, and makes up for it with noise.
        g = 2 * h if noisy else h
        gain = -there.alpha * math.expm1(-g)
        slope, bend = _differences(at, known, used, h)
        x = there.sigma / here.sigma * (math.exp(-h) if noisy else 1) * x + gain * at.x0
        if slope is not None:
            first = 0.5 * gain if used == 2 and not heun else there.alpha - gain / g
            x = x + first * slope
        if bend is not None:
            x = x + there.alpha * ((-math.expm1(-g) - g) / g**2 + 0.5) * bend
        if noisy and there.sigma > 0:
            x = x + there.sigma * math.sqrt(-math.expm1(-2 * h)) * at.noise()
        return x, known[: order - 1]

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
    at: SolverStep, known: Sequence[Tensor], order: int, h: float
) -> tuple[Tensor | None, Tensor | None]:
    """h x0' and h^2 x0'' in lambda, backwards from the newest of `known`; None beyond the order."""
    if order == 1:
        return None, None
    times = [half_log_snr(at.levels[i]) for i in range(at.index, at.index - order, -1)]
    r0 = (times[0] - times[1]) / h
    near = (known[0] - known[1]) / r0
    if order == 2:
        return near, None
    r1 = (times[1] - times[2]) / h
    far = (known[1] - known[2]) / r1
    return near + r0 / (r0 + r1) * (near - far), (near - far) / (r0 + r1)


def unipc(schedule: NoiseSchedule) -> Solver:
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

    def step(at: SolverStep) -> tuple[Tensor, History]:
        x, index = at.x, at.index
        if index > 0 and index - 1 not in uncorrected:
            used = order_at(index - 1, at.num_steps)
            x = _uni(at.levels, index - 1, at.history[0], at.history[1:], used, bh1, at.x0)
        known = (at.x0, *at.history[1:])[:order]
        found = _uni(at.levels, index, x, known, order_at(index, at.num_steps), bh1, None)
        return found, (x, *known)

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
    h = half_log_snr(there) - half_log_snr(here)
    if abs(h) < NOWHERE:
        return x
    x0 = known[0]
    first = there.sigma / here.sigma * x - there.alpha * math.expm1(-h) * x0
    ratios = [(half_log_snr(levels[index - j]) - half_log_snr(here)) / h for j in range(1, order)]
    slopes = [(m - x0) / r for m, r in zip(known[1:], ratios, strict=False)]
    if arrived is not None:
        ratios, slopes = [*ratios, 1.0], [*slopes, arrived - x0]
    if not slopes:
        return first
    scale, moments = _moments(h, len(slopes), bh1)
    rho = [0.5]
    # Of one unknown the paper takes the limit for small h, 1/2.
    if len(slopes) > 1:
        rho = np.linalg.solve(np.vander(ratios, increasing=True).T, moments).tolist()
    total = sum(weight * slope for weight, slope in zip(rho, slopes, strict=True))
    return first - there.alpha * scale * total


def _moments(h: float, count: int, bh1: bool) -> tuple[float, list[float]]:
    """B(-h), which is -h or e^-h - 1, and b_1 .. b_count."""
    scale = -h if bh1 else math.expm1(-h)
    phi, factorial, moments = math.expm1(-h) / -h - 1, 1, []
    for k in range(1, count + 1):
        moments.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return scale, moments


def plms(schedule: NoiseSchedule) -> Solver:
    """Pseudo linear multistep (PNDM, arXiv 2202.09778, eq. 9 and 12) without Runge-Kutta steps.

    Steps 0 and 1 both go from level 0 to level 1: by its noise, then by the mean of both levels'.
    History: x of step 0, and the predictions of three steps, newest first; step 1's is not kept.
    """
    velocity = schedule.prediction == "v_prediction"

    def predicted(x: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
        if velocity:
            return (level.alpha * x - x0) / level.sigma
        return (x - level.alpha * x0) / level.sigma

    def step(at: SolverStep) -> tuple[Tensor, History]:
        first, *past = at.history
        here, there, x, index = at.here, at.there, at.x, at.index
        known = [predicted(x, at.x0, here), *past]
        if index == 1:
            mixed, kept = (known[0] + known[1]) / 2, at.history
            here, x = at.levels[0], first
        else:
            weights = ADAMS_BASHFORTH[min(max(index, 1), 4) - 1]
            mixed = weights[0] * known[0]
            for weight, output in zip(weights[1:], known[1:], strict=False):
                mixed = mixed + weight * output
            kept = (x if index == 0 else first, *known[:3])
        if velocity:
            clean = here.alpha * x - here.sigma * mixed
            return moved(x, clean, here, there.alpha, there.sigma), kept
        ratio = there.alpha / here.alpha
        return ratio * x + (there.sigma - ratio * here.sigma) * mixed, kept

    return Solver(4, False, step)
