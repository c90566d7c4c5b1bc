"""Dynamic NTK (emozilla, 2023): base times (a s - (a - 1))^(d / (d - 2)), s of the canvas at hand.

With a = 1 it is the NTK-aware base; each stage of a cascade has its own s.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import aware_factor, ntk, policy, stretch
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import MethodOptions, Positive
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of dynamic NTK."""

    a: Positive = Field(default=1.0, description="strength of the stretch; 1: the NTK-aware base")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; every axis longer than trained is stretched."""
    a = Options.read(spec).a

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return ntk(omega_F, aware_factor(len(omega_F), a * stretch(axis) - (a - 1)))

    return Method(stages=stages_of(spec, (Stage(),)), positions=policy(rule, steady=True))
