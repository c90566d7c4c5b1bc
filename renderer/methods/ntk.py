"""NTK interpolation: the rotary base grows, so that low frequencies slow down more than high ones.

Two conventions. `aware` (bloc97, 2023) multiplies the base by s^(d / (d - 2)), which leaves the
highest frequency and divides the lowest by s. `factor` multiplies it by a number: 10 in I-Max
(arXiv 2410.07536), 20 in CineScale (arXiv 2508.15774), and by default, as in Lumina-Next (arXiv
2406.18583), the root of how many times more tokens than trained the picture has. Either can be
clipped as in I-Max: nothing slows down more than by position interpolation.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import PICTURE, aware_factor, ntk, policy, stretch
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import AtLeastOne, MethodOptions, Switch
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of NTK interpolation."""

    convention: Literal["aware", "factor"] = Field(
        default="aware", description="what the base is multiplied by: s^(d / (d - 2)), or a number"
    )
    factor: AtLeastOne | None = Field(
        default=None,
        description="that number; default: the root of how many times more tokens there are",
    )
    clip: Switch = Field(
        default=False, description="slow nothing down by more than position interpolation does"
    )

    @model_validator(mode="after")
    def _has_a_use_for_factor(self) -> Self:
        if self.factor is not None and self.convention != "factor":
            raise ValueError(f"option factor = {self.factor:g} needs option convention=factor")
        return self


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; `factor` leaves the frames of a clip alone, as CineScale does."""
    options = Options.read(spec)
    by_factor = options.convention == "factor"

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        most = mean_stretch(axis, spec.width / spec.height)
        factor = aware_factor(len(omega_F), stretch(axis))
        if by_factor:
            factor = most if options.factor is None else options.factor
        slow_F = ntk(omega_F, factor)
        return slow_F.maximum(omega_F / most) if options.clip else slow_F

    positions = policy(rule, PICTURE if by_factor else None, steady=True)
    return Method(stages=stages_of(spec, (Stage(),)), positions=positions)


def mean_stretch(axis: RotaryAxis, aspect: float) -> float:
    """Root of tokens / trained tokens in a picture of width / height = aspect; an axis' of frames.

    Every stage of a cascade has the picture's aspect, so one axis tells the other's length.
    """
    other = {"row": aspect, "column": 1 / aspect}.get(axis.name, 1.0)
    return max(1.0, axis.length * math.sqrt(other) / axis.trained)
