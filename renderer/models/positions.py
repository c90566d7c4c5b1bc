"""Rotary axes, and what positions mean: policies from positions to angles.

Shape suffixes: S tokens, F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RotaryAxis:
    """One rotary axis: `dim` channels, base `theta`, `trained` and present length in tokens."""

    name: str
    dim: int
    theta: float
    trained: int
    length: int


# (axis, position_S in tokens, sigma) -> angle_SF in radians.
PositionPolicy = Callable[["RotaryAxis", "Tensor", float], "Tensor"]


def frequencies(axis: RotaryAxis, like: Tensor) -> Tensor:
    """omega_j = theta^(-2j/dim), zero-based (RoPE, arXiv 2104.09864 eq. 15), float64."""
    import torch

    j = torch.arange(0, axis.dim, 2, dtype=torch.float64, device=like.device)
    return 1.0 / axis.theta ** (j / axis.dim)


def trained(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
    """The angles the model was trained with, continued beyond the trained length."""
    return position_S.double()[:, None] * frequencies(axis, position_S)[None, :]


def squeeze(trained_length: int, length: int) -> float:
    """What positions are divided by: length / trained length, and never less than 1."""
    return max(1.0, length / trained_length)


def interpolated(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
    """Angles at positions squeezed into the trained range; the identity at the trained length."""
    return trained(axis, position_S.double() / squeeze(axis.trained, axis.length), sigma)


def periodic(policy: PositionPolicy, wraps: str) -> PositionPolicy:
    """The same policy with the nearest whole turns of each frequency around the sides that meet.

    A policy's angles grow evenly with position. A frequency of less than half a turn around the
    canvas tells nothing of such a side any more.
    """
    around = [name for side, name in (("x", "column"), ("y", "row")) if side in wraps]
    if not around:
        return policy

    def angles(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        import torch

        if axis.name not in around:
            return policy(axis, position_S, sigma)
        ends = torch.tensor([0, axis.length], device=position_S.device)
        first_F, last_F = policy(axis, ends, sigma)
        turns_F = ((last_F - first_F) / (2 * math.pi)).round()
        return position_S.double()[:, None] * (2 * math.pi / axis.length * turns_F)

    return angles


# (trained, present length of an axis in tokens) -> what coordinates are divided by, in models that
# add positions to their tokens instead of rotating.
AbsolutePolicy = Callable[[int, int], float]
