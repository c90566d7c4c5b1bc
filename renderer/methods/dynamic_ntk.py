"""Dynamic NTK (emozilla, 2023): base times (a s - (a - 1))^(d / (d - 2)), s of the canvas at hand.

With a = 1 it is the NTK-aware base; each stage of a cascade has its own s.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import aware_factor, ntk, policy, stretch
from ..extrapolation.method import Method, Stage
from ..models.positions import RotaryAxis
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS = {"a": Option(1.0, above=0)}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; every axis longer than trained is stretched."""
    a = method_options.read(spec, OPTIONS)["a"]

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return ntk(omega_F, aware_factor(len(omega_F), a * stretch(axis) - (a - 1)))

    return Method(stages=stages_of(spec, (Stage(),)), positions=policy(rule, steady=True))
