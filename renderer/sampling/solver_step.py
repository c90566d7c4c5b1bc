"""The contract of a solver: what a step starts from, and what all solvers are made of.

lambda = log(alpha / sigma) throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .noise_levels import NoiseLevel

if TYPE_CHECKING:
    from torch import Tensor

History = tuple["Tensor", ...]


@dataclass(frozen=True)
class SolverStep:
    """A step of a stage, from levels[index] to the next: x, the network's x0, and what is known.

    `history` is what the last step left; `draw` gives fresh noise like x, None where none is drawn.
    """

    index: int
    levels: Sequence[NoiseLevel]
    x: Tensor
    x0: Tensor
    history: History
    draw: Callable[[], Tensor] | None = None

    @property
    def here(self) -> NoiseLevel:
        """The level that x has."""
        return self.levels[self.index]

    @property
    def there(self) -> NoiseLevel:
        """The level that it is to have."""
        return self.levels[self.index + 1]

    @property
    def num_steps(self) -> int:
        """Steps of the stage."""
        return len(self.levels) - 1

    def noise(self) -> Tensor:
        """Drawn anew."""
        assert self.draw is not None
        return self.draw()


@dataclass(frozen=True)
class Solver:
    """How to step, and how much is remembered between steps.

    `step` returns x at the next level and the history. `num_history` tensors like x are kept, zeros
    at first; which of them count follows from the step's index, so that x, history and index are
    all of the state. `needs_noise`: steps draw.
    """

    num_history: int
    needs_noise: bool
    step: Callable[[SolverStep], tuple[Tensor, History]]


def moved(x: Tensor, x0: Tensor, level: NoiseLevel, alpha: float, sigma: float) -> Tensor:
    """x = alpha x0 + sigma eps at other factors, with the eps that it has at its level."""
    kept = sigma / level.sigma
    return kept * x + (alpha - kept * level.alpha) * x0


def half_log_snr(level: NoiseLevel) -> float:
    """lambda: half the logarithm of the signal-to-noise ratio; infinite without noise."""
    return math.log(level.alpha) - math.log(level.sigma) if level.sigma > 0 else math.inf
