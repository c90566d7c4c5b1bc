"""DyPE (arXiv 2510.20766): a stretch of positions that fades as the noise does.

The layout is settled at high noise; late steps draw detail, best with the positions the model was
trained with. kappa = strength * sigma^power, and by it `pi` divides positions by s^kappa, `ntk`
takes the kappa-th power of the base's factor, and `yarn` moves the limits between its bands.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import (
    aware_factor,
    kappa,
    ntk,
    policy,
    stretch,
    temperature,
    vision_yarn,
)
from ..extrapolation.method import Method, Spectrum, Stage
from ..extrapolation.method_options import MethodOptions, Positive
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["pi", "ntk", "yarn"]


class Options(MethodOptions):
    """Of DyPE."""

    form: Form = Field(default="yarn", description="what is stretched, and how")
    strength: Positive | None = Field(
        default=None, description="lambda_s; default: 2 for pi and ntk, 1 for yarn"
    )
    power: Positive = Field(
        default=2.0, description="lambda_t, the power of sigma by which it fades"
    )


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; frequencies are made anew at every step. tau, of yarn, does not fade."""
    options = Options.read(spec)
    form, strength = options.form, options.strength
    if strength is None:
        strength = 1.0 if form == "yarn" else 2.0

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return stretched(form, axis, omega_F, kappa(sigma, strength, options.power))

    return Method(
        stages=stages_of(spec, (Stage(),)),
        positions=policy(rule),
        gains=warmed if form == "yarn" else None,
    )


def stretched(form: Form, axis: RotaryAxis, omega_F: Tensor, share: float) -> Tensor:
    """The frequencies of one form at kappa = share; at 0 the trained ones."""
    scale = stretch(axis)
    if form == "pi":
        return omega_F / scale**share
    if form == "ntk":
        return ntk(omega_F, aware_factor(len(omega_F), scale) ** share)
    return vision_yarn(omega_F, axis.theta, axis.trained, scale, share)


def warmed(axis: RotaryAxis, sigma: float, spectrum: Spectrum | None) -> float:
    """tau of the axis, at every noise level."""
    return temperature(axis)
