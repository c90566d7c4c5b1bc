"""RIFLEx (arXiv 2502.15894): the frequency with which a clip repeats is slowed down to its length.

It is the one whose period is nearest to that after which clips were first seen to repeat, in
latent frames; this is a property of the model, and not its training length.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError, SpecError
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import PICTURE, dominant, periods, policy
from ..extrapolation.frequency_correction import corrected
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import Index, MethodOptions, Part, Positive
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of RIFLEx."""

    along: Literal["frames", "picture"] = Field(
        default="frames", description="which axes are corrected"
    )
    period: Positive | None = Field(
        default=None,
        description="tokens of the axis after which it repeats; default: the trained length",
    )
    k: Index | None = Field(
        default=None,
        description="index from 0 (the paper counts from 1) of the frequency; "
        "default: by the period",
    )
    margin: Part = Field(default=0.9, description="part of the slowed frequency that is kept")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; raises `PlanError` for pictures, which have no frames."""
    options = Options.read(spec)
    if options.along == "frames" and not facts.video:
        raise PlanError(
            f"method riflex is for the frames of clips, and {facts.family} draws pictures; "
            "method rdfc, or --option along=picture, corrects rows and columns"
        )

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        k = options.k
        if k is None:
            k = dominant(omega_F, options.period or axis.trained)
        if k >= len(omega_F):
            raise SpecError(f"option k = {k}; axis {axis.name} has 0 to {len(omega_F) - 1}")
        repeats = axis.length > float(periods(omega_F)[k])
        return corrected(omega_F, [k], axis.length, options.margin) if repeats else omega_F

    names = ("frame",) if options.along == "frames" else PICTURE
    return Method(stages=stages_of(spec, (Stage(),)), positions=policy(rule, names, steady=True))
