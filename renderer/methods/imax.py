"""I-Max (arXiv 2410.07536): drawn again at full size, the low band led by the enlarged picture.

NTK positions with a factor of 10, clipped at position interpolation, and proportional attention go
with it. Its repeated text tokens are left out.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import from_trained_size, stages_of
from ..extrapolation.concentration import proportional
from ..extrapolation.frequencies import PICTURE, ntk, policy, stretch
from ..extrapolation.guides import WEIGHT_CURVES, Resolution
from ..extrapolation.method import Focus, Method
from ..models.positions import RotaryAxis, trained
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS = {
    "schedule": Option("cosine_decay", choices=WEIGHT_CURVES),
    "strength": Option(1.0, least=0),
    "half_token": True,
    "factor": Option(10.0, least=1),
}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Two stages, both from noise: the trained size, then the picture's under guidance.

    Models without rotary positions are guided only.
    """
    found = method_options.read(spec, OPTIONS)

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return ntk(omega_F, found["factor"]).maximum(omega_F / stretch(axis))

    return Method(
        stages=stages_of(spec, from_trained_size(spec, facts)),
        positions=policy(rule, PICTURE, steady=True) if facts.rotary else trained,
        focus=Focus(constant=proportional) if facts.rotary else None,
        guide=Resolution(found["schedule"], found["strength"], found["half_token"]),
    )
