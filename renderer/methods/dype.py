"""DyPE (arXiv 2510.20766): a stretch of positions that fades as the noise does.

The layout is settled at high noise; late steps draw detail, best with the positions the model was
trained with. kappa = strength * sigma^power, and by it `pi` divides positions by s^kappa, `ntk`
takes the kappa-th power of the base's factor, and `yarn` moves the limits between its bands.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from ..models.positions import RotaryAxis
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS = {
    "form": Option("yarn", choices=("pi", "ntk", "yarn")),
    # lambda_s: 2 for pi and ntk, 1 for yarn, unless given; and lambda_t.
    "strength": Option(None, "number", above=0),
    "power": Option(2.0, above=0),
}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; frequencies are made anew at every step. tau, of yarn, does not fade."""
    found = method_options.read(spec, OPTIONS)
    form, strength = found["form"], found["strength"]
    if strength is None:
        strength = 1.0 if form == "yarn" else 2.0

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return stretched(form, axis, omega_F, kappa(sigma, strength, found["power"]))

    return Method(
        stages=stages_of(spec, (Stage(),)),
        positions=policy(rule),
        gains=warmed if form == "yarn" else None,
    )


def stretched(form: str, axis: RotaryAxis, omega_F: Tensor, share: float) -> Tensor:
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
