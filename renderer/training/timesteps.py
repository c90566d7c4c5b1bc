"""At which times of rectified flow a network is trained, and how its errors are weighed.

x_t = (1 - t) x_0 + t eps, the network's target eps - x_0 or what means the same. A distribution
of times is its quantile function, of which uniform numbers make samples, and its density, which
as a weight of uniform times means the same as the samples (SD3, arXiv 2403.03206, sec. 3.1).
Shape suffix: B batch. Times and densities are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from ..sampling.timestep_shift import shifted, unshifted

if TYPE_CHECKING:
    from torch import Tensor

# Above it, and below -1, mode sampling gives one time for two uniform numbers.
MOST_MODE_SCALE = 2 / (math.pi - 2)
_HALVINGS = 60  # of [0, 1]: more than float64 tells apart


class Timesteps(Protocol):
    """A distribution of times in [0, 1]."""

    def quantile(self, u_B: Tensor) -> Tensor:
        """The times below which lie these shares u of all; rises with u."""

    def density(self, t_B: Tensor) -> Tensor:
        """How often a time in (0, 1) is drawn; the integral over all is 1."""


def sample(timesteps: Timesteps, number: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw so many times, float64 [B]; none is exactly 0, where a weight may have no bound."""
    u_B = torch.rand(number, generator=generator, dtype=torch.float64)
    return timesteps.quantile(u_B.clamp(min=2.0**-53))


@dataclass(frozen=True)
class Uniform:
    """All times alike: rectified flow as first published (arXiv 2209.03003)."""

    def quantile(self, u_B: Tensor) -> Tensor:
        """u itself."""
        return u_B.double()

    def density(self, t_B: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(t_B, dtype=torch.float64)


@dataclass(frozen=True)
class LogitNormal:
    """t = sigmoid(u), u ~ N(mean, deviation^2): the ends are rare (SD3, eq. 19).

    A `mean` above 0 moves the times towards noise. Raises ValueError for a deviation that is not
    above 0.
    """

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"deviation {self.deviation:g} of a logit-normal; above 0 works")

    def quantile(self, u_B: Tensor) -> Tensor:
        """The sigmoid of the normal distribution's quantile."""
        return (self.mean + self.deviation * torch.special.ndtri(u_B.double())).sigmoid()

    def density(self, t_B: Tensor) -> Tensor:
        """The normal density of logit t over t (1 - t)."""
        t_B = t_B.double()
        z_B = (t_B.logit() - self.mean) / self.deviation
        scale = self.deviation * math.sqrt(2 * math.pi)
        return (-z_B.square() / 2).exp() / (scale * t_B * (1 - t_B))


@dataclass(frozen=True)
class Mode:
    """t = 1 - u - scale (cos^2(pi u / 2) - 1 + u): more or fewer in the middle (SD3, eq. 20).

    Unlike a logit-normal's its density is above 0 at both ends. Raises ValueError for a `scale`
    outside [-1, 2 / (pi - 2)], where u and t are no longer one to one.
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= MOST_MODE_SCALE:
            raise ValueError(f"scale {self.scale:g} of mode; -1 to {MOST_MODE_SCALE:.4f} works")

    def quantile(self, u_B: Tensor) -> Tensor:
        """The formula of 1 - u, for it falls with u."""
        v_B = 1 - u_B.double()
        return 1 - v_B - self.scale * (torch.cos(math.pi * v_B / 2).square() - 1 + v_B)

    def density(self, t_B: Tensor) -> Tensor:
        """1 over the slope at the u that gives t, which is found by halving."""
        t_B = t_B.double()
        low_B, high_B = torch.zeros_like(t_B), torch.ones_like(t_B)
        for _ in range(_HALVINGS):
            middle_B = (low_B + high_B) / 2
            is_below_B = self.quantile(middle_B) < t_B
            low_B = torch.where(is_below_B, middle_B, low_B)
            high_B = torch.where(is_below_B, high_B, middle_B)
        bend_B = math.pi / 2 * torch.sin(math.pi * low_B)
        return 1 / (1 + self.scale * (1 - bend_B))


@dataclass(frozen=True)
class CosMap:
    """t = 1 - 1 / (tan(pi u / 2) + 1): the log-SNR of a cosine schedule (SD3, eq. 21)."""

    def quantile(self, u_B: Tensor) -> Tensor:
        """The formula, with sine and cosine, which are finite at both ends."""
        angle_B = math.pi / 2 * u_B.double()
        return angle_B.sin() / (angle_B.sin() + angle_B.cos())

    def density(self, t_B: Tensor) -> Tensor:
        """2 / (pi - 2 pi t + 2 pi t^2)."""
        t_B = t_B.double()
        return 2 / (math.pi * (1 - 2 * t_B + 2 * t_B.square()))


@dataclass(frozen=True)
class Shifted:
    """Times of `base`, later by t' = alpha t / (1 + (alpha - 1) t) (SD3, eq. 23).

    Log-SNRs move by -2 log(alpha). Raises ValueError for an alpha that is not above 0.
    """

    base: Timesteps
    alpha: float

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha {self.alpha:g} of a timestep shift; above 0 works")

    def quantile(self, u_B: Tensor) -> Tensor:
        """The base's times, shifted."""
        return shifted(self.base.quantile(u_B), self.alpha)

    def density(self, t_B: Tensor) -> Tensor:
        """The base's density before the shift, by how far the shift spreads times there."""
        before_B = unshifted(t_B.double(), self.alpha)
        spread_B = self.alpha / (1 + (self.alpha - 1) * before_B).square()
        return self.base.density(before_B) / spread_B


def shift_for(tokens: int, base_tokens: int) -> float:
    """alpha = sqrt(m / n), at which noise hides as much of m tokens as of n (SD3, sec. 5.3.2)."""
    return math.sqrt(tokens / base_tokens)


def loss_weight(prediction: str, t_B: Tensor, least: float = 0.0) -> Tensor:
    """By what to multiply squared errors of a prediction to have those of the velocity.

    `prediction` is velocity, epsilon or sample (x_0). x_t is known, so an error of the velocity
    is t times as large in x_0, and 1 - t times in eps. What this is divided by is at least
    `least`: a network need not be exact about what cannot be seen.
    """
    t_B = t_B.double()
    match prediction:
        case "velocity":
            return torch.ones_like(t_B)
        case "epsilon":
            return (1 - t_B).clamp(min=least).square().reciprocal()
        case "sample":
            return t_B.clamp(min=least).square().reciprocal()
    raise ValueError(f"prediction {prediction!r}; velocity, epsilon and sample work")
