"""Solvers: one step from a noise level to the next, whatever the network predicted.

A solver sees x = alpha x0 + sigma eps and the network's x0, never velocity or noise, and acts
element by element, so it needs no other rank. Those of one step are here, others in `multistep`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .multistep import dpm, plms, unipc
from .noise_levels import NoiseLevel, NoiseSchedule
from .solver_step import History, Solver, SolverStep, moved

if TYPE_CHECKING:
    from torch import Tensor


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

    def step(at: SolverStep) -> tuple[Tensor, History]:
        return moved(at.x, at.x0, at.here, at.there.alpha, at.there.sigma), ()

    return Solver(0, False, step)


def _ancestral(schedule: NoiseSchedule) -> Solver:
    """Euler down to less noise than is due, then fresh noise (the ancestral step of DDPM, arXiv
    2006.11239, in the coordinates of arXiv 2206.00364).

    With s = sigma / alpha: s_up^2 = s'^2 (s^2 - s'^2) / s^2, s_down = s'^2 / s.
    """

    def step(at: SolverStep) -> tuple[Tensor, History]:
        here, there = at.here, at.there
        s, s_next = here.sigma / here.alpha, there.sigma / there.alpha
        x = moved(at.x, at.x0, here, there.alpha, there.alpha * s_next**2 / s)
        if s_next > 0:
            x = x + there.alpha * s_next * math.sqrt(1 - (s_next / s) ** 2) * at.noise()
        return x, ()

    return Solver(0, True, step)


def _lcm(schedule: NoiseSchedule) -> Solver:
    """Multistep consistency sampling: to x0, then fresh noise (LCM, arXiv 2310.04378, Algorithm 3).

    x' = alpha' f + sigma' eps with f = c_skip x + c_out x0, whose boundary c_skip = 1 at t = 0:
    c_skip = d^2 / (t^2 + d^2), c_out = t / sqrt(t^2 + d^2), d = 1/2, t ten times the timestep. Of
    rectified flow f is x0.
    """
    scaling = 0.0 if schedule.flow else float(schedule.options.get("timestep_scaling", 10.0))

    def step(at: SolverStep) -> tuple[Tensor, History]:
        here, there, x0 = at.here, at.there, at.x0
        if scaling:
            t = here.timestep * scaling
            x0 = t / math.hypot(t, 0.5) * x0 + 0.25 / (t**2 + 0.25) * at.x
        if there.sigma == 0:
            return there.alpha * x0, ()
        return there.alpha * x0 + there.sigma * at.noise(), ()

    return Solver(0, True, step)


SOLVERS: Mapping[str, Callable[[NoiseSchedule], Solver]] = {
    "ancestral": _ancestral,
    "dpm": dpm,
    "euler": _euler,
    "lcm": _lcm,
    "plms": plms,
    "unipc": unipc,
}


def stage_seed(seed: int, stage_index: int) -> int:
    """The seed of a stage's noise: the render's own for the first, far apart for the others."""
    return (seed + stage_index * 0x9E3779B97F4A7C15) % 2**63
