"""Noise levels: x = alpha x0 + sigma eps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level; `timestep` is what the network is told, on the scheduler's own scale."""

    timestep: float
    alpha: float
    sigma: float


@dataclass(frozen=True)
class NoiseSchedule:
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

    def time(self, level: NoiseLevel) -> float:
        """A level's timestep as a part of all that there are; of rectified flow its sigma."""
        if self.flow:
            return level.sigma
        return level.timestep / int(self.options.get("num_train_timesteps", 1000))

    def by_euler(self) -> NoiseSchedule:
        """The same rectified flow stepped by Euler, as diffusers' own scheduler of flows does."""
        options = {name: value for name, value in self.options.items() if name not in SPACINGS}
        if "flow_shift" in options:
            options["shift"] = options.pop("flow_shift")
        options["_class_name"] = "FlowMatchEulerDiscreteScheduler"
        return replace(self, solver="euler", options=options)


@dataclass(frozen=True)
class Table:
    """Falling noise: step i goes from levels[i] to levels[i + 1].

    `scale` multiplies the initial noise; `shift` is the timestep shift alpha, None where there
    is none.
    """

    levels: tuple[NoiseLevel, ...]
    scale: float
    shift: float | None


def x0_from(prediction: str, x: Tensor, output: Tensor, level: NoiseLevel) -> Tensor:
    """The clean latents that a network's output means at a level (arXiv 2202.00512, app. D).

    `prediction` is a `NoiseSchedule.prediction`; velocity is eps - x0 (arXiv 2209.03003).
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
