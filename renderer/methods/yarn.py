"""YaRN (arXiv 2309.00071) with bands for pictures, as DyPE (arXiv 2510.20766) has them.

The published limits of 1 and 32 turns are meant for text: on an axis of 64 tokens no frequency
turns more than ten times. Here low frequencies are interpolated, middle ones NTK-aware, high ones
kept, and cos and sin of rows and columns grow by tau = 1 + 0.1 ln s.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import policy, stretch, temperature, vision_yarn
from ..extrapolation.method import Method, Spectrum, Stage
from ..extrapolation.method_options import MethodOptions, Switch
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of YaRN."""

    temperature: Switch = Field(default=True, description="let cos and sin grow by tau")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; `temperature=false` leaves cos and sin as they are."""
    warm = Options.read(spec).temperature
    return Method(
        stages=stages_of(spec, (Stage(),)),
        positions=policy(bands, steady=True),
        gains=warmed if warm else None,
    )


def bands(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
    """Three bands over the trained length."""
    return vision_yarn(omega_F, axis.theta, axis.trained, stretch(axis))


def warmed(axis: RotaryAxis, sigma: float, spectrum: Spectrum | None) -> float:
    """tau of the axis, at every noise level."""
    return temperature(axis)
