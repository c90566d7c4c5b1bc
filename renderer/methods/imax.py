"""I-Max (arXiv 2410.07536): drawn again at full size, the low band led by the enlarged picture.

NTK positions with a factor of 10, clipped at position interpolation, and proportional attention go
with it. Its repeated text tokens are left out.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import from_trained_size, stages_of
from ..extrapolation.concentration import proportional
from ..extrapolation.frequencies import PICTURE, ntk, policy, stretch
from ..extrapolation.guides import Resolution, WeightCurve
from ..extrapolation.method import Focus, Method
from ..extrapolation.method_options import AtLeastOne, MethodOptions, NotNegative, Switch
from ..models.positions import RotaryAxis, trained
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of I-Max."""

    schedule: WeightCurve = Field(
        default="cosine_decay", description="how the guidance goes from the first step to the last"
    )
    strength: NotNegative = Field(default=1.0, description="what the guidance is multiplied by")
    half_token: Switch = Field(
        default=True, description="lay the grid of tokens half a token off at every other step"
    )
    factor: AtLeastOne = Field(default=10.0, description="what the rotary base is multiplied by")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Two stages, both from noise: the trained size, then the picture's under guidance.

    Models without rotary positions are guided only.
    """
    options = Options.read(spec)

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return ntk(omega_F, options.factor).maximum(omega_F / stretch(axis))

    return Method(
        stages=stages_of(spec, from_trained_size(spec, facts)),
        positions=policy(rule, PICTURE, steady=True) if facts.rotary else trained,
        focus=Focus(constant=proportional) if facts.rotary else None,
        guide=Resolution(options.schedule, options.strength, options.half_token),
    )
