"""SEGA (arXiv 2605.22668): gains of rotary frequencies that follow the spectrum of the latents.

Bands of high energy are concentrated less, weak ones, fine detail, more. The base is a strong NTK
one; gains are made anew at every evaluation, of each prompt's own latent tokens.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequencies import PICTURE, ntk, policy, stretch
from ..extrapolation.method import Method, Spectrum, Stage
from ..extrapolation.method_options import MethodOptions, NotNegative
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Of SEGA."""

    kappa: NotNegative = Field(
        default=0.08, description="power of the stretch that is the mean gain"
    )


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; rows and columns only."""
    from ..extrapolation.spectrum import gains

    kappa = Options.read(spec).kappa

    def gain(axis: RotaryAxis, sigma: float, spectrum: Spectrum | None) -> Tensor | float:
        if axis.name not in PICTURE or axis.length <= axis.trained:
            return 1.0
        assert spectrum is not None, "the method says that it needs one"
        profile_K = spectrum.row if axis.name == "row" else spectrum.column
        return gains(profile_K, spectrum.radial, axis.dim // 2, stretch(axis) ** kappa)

    return Method(
        stages=stages_of(spec, (Stage(),)),
        positions=policy(strong_base, PICTURE, steady=True),
        gains=gain,
        needs_spectrum=True,
    )


def strong_base(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
    """Frequencies of the base theta * s^(2d / (d - 2)) / (1 + 0.1 ln s)."""
    from ..extrapolation.spectrum import base_factor

    return ntk(omega_F, base_factor(len(omega_F), stretch(axis)))
