"""The default: what drew best past the trained size, and the plain model up to it.

The first stage is the picture at the trained area, drawn by the plain model; later ones grow by 2
at most. Each restarts from the one before it, enlarged and noised (SDEdit, arXiv 2108.01073), so
that a sun stays one sun. Positions are divided by how much larger than the first stage the picture
is (arXiv 2306.15595), alike on both axes, so that nothing is stretched; as that flattens attention,
heads are concentrated by their entropies (EAAC, arXiv 2512.04504), more than the paper does where
no position is touched.

A model that knows only squares would put ground above sky in another shape. Its first stage is the
smallest picture whose sides are no shorter than trained. While noise hides all but the layout, the
long axis is interpolated onto the grid of tokens that it knows, so that there is one of everything;
then its tokens are as wide as they were in training, and the frequency that would repeat is
corrected (RDFC, arXiv 2512.04504), so that what is round is drawn round.

A picture that is longer than trained by a fifth at most is drawn at once.

The evidence is tests/bench/results/quality.md, on the model that comes with the package, which
knows only squares, and what was tried before on a few seeds each. A first stage shorter than
trained loses the sky of a wide canvas, and none at all makes the sun dissolve at four times the
trained side. Restarts below 0.8 at twice the side leave less detail. Led by the low band of the
stage before, with tokens half a token off at every other step, detail was half. Factors of 1.2 to 2
had the better crops and layout there over 1.1 to 1.6, and these over the paper's 1 to 1.3. At four
times the side, of 20 pictures each, the same restarts and factors eat at the ridges of mountains
(layout KID 0.92); restarts of 0.4 and 0.3 with factors of 1.1 to 1.6 do not (0.50), have the best
crops, and more detail than without any factor. Of 16 pictures of 512 x 256 each, 12 had one sun
where the long axis was corrected below a noise level of 0.9, all where that was 0.85 or 0.8;
interpolated to the end 14 had, each as wide as the canvas. Correcting both axes of a larger square,
once its layout is there, loses the sky. At 288 x 288 one stage is as good as two. Other models were
not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import begun, stages_of
from ..extrapolation.concentration import concentration
from ..extrapolation.frequency_correction import candidates, corrected
from ..extrapolation.method import Focus, Method, Stage
from ..extrapolation.method_options import MethodOptions
from ..models.positions import (
    PositionPolicy,
    RotaryAxis,
    frequencies,
    interpolated,
    squeeze,
    trained,
)
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Strength:
    """How freely later stages draw.

    `starts` are the sigmas at which the second and every later stage restarts; `least` and `most`
    are what the logits of the head that looks everywhere, and of the one that looks least around,
    are multiplied by.
    """

    starts: tuple[float, ...]
    least: float
    most: float


# Where one stage follows the first, and where several do: each adds to what the last one drew.
ONE, SEVERAL = Strength((0.8,), 1.2, 2.0), Strength((0.4, 0.3), 1.1, 1.6)
# How much longer than trained a picture's sides may be that is drawn in one stage.
SLIGHT = 2**0.25
# Sigma above which the layout of a shape that a model does not know is made.
LAYOUT = 0.85


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The plain model up to the trained area and the trained frames; it has no options.

    A picture that is drawn over (`init`) gives the layout itself, and is not drawn small first.
    Models that rotate no positions have them rescaled where they are added, and no head is
    concentrated.
    """
    MethodOptions.read(spec)
    if _is_known(spec, facts):
        return Method(
            stages=stages_of(spec, (Stage(),)), note="the plain model, no larger than trained"
        )
    stages = stages_of(spec, _growing(spec, facts) if spec.init is None else (Stage(),))
    strength = _strength(_levels(spec, facts))
    focus = Focus(scale=partial(concentration, least=strength.least, most=strength.most))
    return Method(
        stages=stages,
        positions=_positions(spec, facts),
        absolute=None if facts.rotary else squeeze,
        focus=focus if facts.rotary else None,
        note=_note(len(stages), facts),
    )


def _is_known(spec: RenderSpec, facts: ModelFacts) -> bool:
    """Whether the model was trained on so many pixels and frames."""
    is_small = spec.height * spec.width <= facts.training_size**2
    return is_small and spec.num_frames <= facts.training_frames


def _growing(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """Stages that grow evenly, the first from noise."""
    ratio, levels = _ratio(spec, facts), _levels(spec, facts)
    return tuple(
        Stage(scale=ratio ** ((i - levels) / max(1, levels)), start=start)
        for i, start in enumerate(begun(levels, _strength(levels).starts))
    )


def _levels(spec: RenderSpec, facts: ModelFacts) -> int:
    """How many stages follow the first."""
    ratio = _ratio(spec, facts)
    return math.ceil(math.log2(ratio) - 1e-9) if ratio > SLIGHT else 0


def _strength(levels: int) -> Strength:
    return SEVERAL if levels > 1 else ONE


def _ratio(spec: RenderSpec, facts: ModelFacts) -> float:
    """How much longer than those of the first stage the picture's sides are."""
    side = min(spec.height, spec.width) if facts.square else math.sqrt(spec.height * spec.width)
    return max(1.0, side / facts.training_size)


def _positions(spec: RenderSpec, facts: ModelFacts) -> PositionPolicy:
    """Angles squeezed into what a model knows: the trained square, or the first stage's shape."""
    if not facts.rotary:
        return trained
    if facts.square:
        return _of_squares(spec)
    ratio, unit = _ratio(spec, facts), facts.latent.unit
    first = {
        "row": round(spec.height / ratio / unit),
        "column": round(spec.width / ratio / unit),
    }

    def evenly(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        known = replace(axis, trained=first.get(axis.name, axis.trained))
        return interpolated(known, position_S, sigma)

    return evenly


def _of_squares(spec: RenderSpec) -> PositionPolicy:
    """The short axis interpolated; the long one in full for the layout, and then by as much."""
    short, long = sorted((spec.height, spec.width))
    if short == long:
        return interpolated
    longest = "column" if spec.width == long else "row"

    def positions(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        if axis.name != longest or axis.length <= axis.trained or sigma > LAYOUT:
            return interpolated(axis, position_S, sigma)
        first = min(axis.length, math.ceil(axis.trained * long / short))  # of the first stage
        omega_F = frequencies(axis, position_S)
        dominant = candidates(omega_F, axis.trained, first)[:1]
        scaled_S = position_S.double() * (first / axis.length)
        return scaled_S[:, None] * corrected(omega_F, dominant, first)[None, :]

    return positions


def _note(num_stages: int, facts: ModelFacts) -> str:
    staged = f"{num_stages} stages" if num_stages > 1 else "one stage"
    if facts.rotary:
        return f"{staged}, positions interpolated, heads concentrated"
    return f"{staged}; {facts.family} rotates no positions, so that no head is concentrated"
