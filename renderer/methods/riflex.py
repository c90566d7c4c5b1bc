"""RIFLEx (arXiv 2502.15894): the frequency with which a clip repeats is slowed down to its length.

It is the one whose period is nearest to that after which clips were first seen to repeat, in
latent frames; this is a property of the model, and not its training length.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError, SpecError
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import PICTURE, dominant, periods, policy
from ..extrapolation.frequency_correction import corrected
from ..extrapolation.method import Method, Stage
from ..models.positions import RotaryAxis
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS = {
    "along": Option("frames", choices=("frames", "picture")),
    # In tokens of the axis; the trained length unless given.
    "period": Option(None, "number", above=0),
    # Index from 0, where the paper counts from 1.
    "k": Option(None, "whole", least=0),
    "margin": Option(0.9, above=0, most=1),
}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; raises `PlanError` for pictures, which have no frames."""
    found = method_options.read(spec, OPTIONS)
    if found["along"] == "frames" and not facts.video:
        raise PlanError(
            f"method riflex is for the frames of clips, and {facts.family} draws pictures; "
            "method rdfc, or --option along=picture, corrects rows and columns"
        )

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        k = found["k"]
        if k is None:
            k = dominant(omega_F, found["period"] or axis.trained)
        if k >= len(omega_F):
            raise SpecError(f"option k = {k}; axis {axis.name} has 0 to {len(omega_F) - 1}")
        repeats = axis.length > float(periods(omega_F)[k])
        return corrected(omega_F, [k], axis.length, found["margin"]) if repeats else omega_F

    names = ("frame",) if found["along"] == "frames" else PICTURE
    return Method(stages=stages_of(spec, (Stage(),)), positions=policy(rule, names, steady=True))
