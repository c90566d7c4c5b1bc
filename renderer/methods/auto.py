"""The default: what drew best past the trained size, and the plain model up to it.

The first stage is the picture at the trained area, drawn by the plain model; later ones grow by 2
at most. Each restarts from the one before it, enlarged and noised (SDEdit, arXiv 2108.01073), so
that a sun stays one sun; where several follow each takes three fifths of the steps, for it has less
noise to take away. Positions are divided by how much larger than the first stage the picture
is (arXiv 2306.15595), alike on both axes, so that nothing is stretched; as that flattens attention,
heads are concentrated by their entropies (EAAC, arXiv 2512.04504), more than the paper does where
no position is touched.

A model that knows only squares would put ground above sky in another shape. Its first stage is the
smallest picture whose sides are no shorter than trained. While noise hides all but the layout, the
long axis is interpolated onto the grid of tokens that it knows, so that there is one of everything;
then its tokens are as wide as they were in training, and the frequency that would repeat is
corrected (RDFC, arXiv 2512.04504), so that what is round is drawn round.

A picture that is longer than trained by a fifth at most is drawn at once.

Once the first stage has made the layout, stages of more than twice its sides attend to pooled
context: each token to its own window of the trained size, and to the rest of the canvas as means of
keys and values over blocks.  As positions are divided, a block spans no more than a token did in
training, so that its keys hardly differ by where they are.  It is linear in pixels: 0.14 of the
attention at four times the side, 0.04 at eight (`tests/bench/results/attend.md`).

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
once its layout is there, loses the sky. At 288 x 288 one stage is as good as two. Pooled context
drew 1024 x 1024 within 0.9 (0.7 to 1.1, of 5 pictures) grey levels of full attention, reduced to
160 pixels, with the same crops, layout and detail, and 2048 x 2048 within 1.2 (one picture);
windows alone differ by 5 to 9 and leave steps in the sky. At twice the side it is 1.4 (1.0 to 1.8,
of 6), and the mean step at upright borders of windows exceeded full attention's by 0.34 (0.20 to
0.50, of 15); what it saves there is half of a cheap stage, and no time on a processor, so that one
keeps full attention. At 1024 x 1024 later stages of 12 of 20 steps drew within 0.4 grey levels of
20 (three pictures, mean gradients 1 to 2 % less), of 6 within 0.8, in four and three fifths of the
time. Other models were not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import begun, first_enlarged, stages_of
from ..extrapolation.concentration import concentration
from ..extrapolation.frequencies import known_frequencies
from ..extrapolation.frequency_correction import candidates, corrected
from ..extrapolation.method import Focus, Method, Stage, StepContext
from ..extrapolation.method_options import MethodOptions
from ..models.positions import (
    PositionPolicy,
    RotaryAxis,
    interpolated,
    squeeze,
    trained,
)
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

    from ..extrapolation.method import TokenSpacing, WindowPolicy


@dataclass(frozen=True)
class Strength:
    """How freely later stages draw.

    `starts` are the sigmas at which the second and every later stage restarts; `least` and `most`
    are what the logits of the head that looks everywhere, and of the one that looks least around,
    are multiplied by; `steps` is their share of the render's steps.
    """

    starts: tuple[float, ...]
    least: float
    most: float
    steps: float = 1.0


# Where one stage follows the first, and where several do: each adds to what the last one drew.
ONE, SEVERAL = Strength((0.8,), 1.2, 2.0), Strength((0.4, 0.3), 1.1, 1.6, steps=0.6)
# How much longer than trained a picture's sides may be that is drawn in one stage.
SLIGHT = 2**0.25
# Sigma above which the layout of a shape that a model does not know is made.
LAYOUT = 0.85
# How many times longer than the first stage one may be that attends to the whole canvas.
FULL = 2.0


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The plain model up to the trained area and the trained frames; it has no options.

    A picture that is drawn over (`init`) gives the layout itself, and is not drawn small first;
    one that is drawn around (`place`) gives none.
    Models that rotate no positions have them rescaled where they are added, and no head is
    concentrated.
    """
    MethodOptions.read(spec)
    if _is_known(spec, facts):
        return Method(
            stages=stages_of(spec, (Stage(),)),
            token_spacing=_spacing(spec, facts) if facts.rotary else None,
            note="the plain model, no larger than trained",
        )
    stages = stages_of(spec, (Stage(),) if spec.is_laid_out else _growing(spec, facts))
    strength = _strength(_levels(spec, facts))
    focus = Focus(scale=partial(concentration, least=strength.least, most=strength.most))
    return Method(
        stages=stages,
        positions=_positions(spec, facts),
        absolute=None if facts.rotary else squeeze,
        focus=focus if facts.rotary else None,
        windows=_context(spec, facts, stages),
        token_spacing=_spacing(spec, facts) if facts.rotary else None,
        note=_note(len(stages), facts),
    )


def _is_known(spec: RenderSpec, facts: ModelFacts) -> bool:
    """Whether the model was trained on so many pixels and frames."""
    is_small = spec.height * spec.width <= facts.training_size**2
    return is_small and spec.num_frames <= facts.training_frames


def _growing(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """Stages that grow evenly, the first from noise."""
    ratio, levels = _ratio(spec, facts), _levels(spec, facts)
    strength = _strength(levels)
    later = max(1, round(strength.steps * spec.num_inference_steps))
    return tuple(
        Stage(
            scale=ratio ** ((i - levels) / max(1, levels)),
            start=start,
            steps=later if i and later < spec.num_inference_steps else None,
        )
        for i, start in enumerate(begun(levels, strength.starts))
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
    first = _first(spec, facts)

    def evenly(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        known = replace(axis, trained=first.get(axis.name, axis.trained))
        return interpolated(known, position_S, sigma)

    return evenly


def _first(spec: RenderSpec, facts: ModelFacts) -> dict[str, int]:
    """Tokens of the first stage's axes."""
    ratio, unit = _ratio(spec, facts), facts.latent.unit
    return {
        "row": round(spec.height / ratio / unit),
        "column": round(spec.width / ratio / unit),
    }


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
        omega_F = known_frequencies(axis, position_S)
        dominant = candidates(omega_F, axis.trained, first)[:1]
        scaled_S = position_S.double() * (first / axis.length)
        corrected_F = corrected(omega_F, dominant, first).to(position_S.device)
        return scaled_S[:, None] * corrected_F[None, :]

    return positions


def _spacing(spec: RenderSpec, facts: ModelFacts) -> TokenSpacing:
    """As positions are divided: by the first stage, or by the trained square."""
    patch, first = facts.latent.patch, _first(spec, facts)
    short, long = sorted((spec.height, spec.width))

    def spacing(context: StepContext) -> tuple[float, float]:
        canvas = context.canvas
        found = list(context.interpolated)
        lengths = (canvas.height // patch, canvas.width // patch)
        sides = ("row", "column")
        if not facts.square:
            known = [first.get(name, length) for name, length in zip(sides, lengths, strict=True)]
            found = [max(1.0, a / b) for a, b in zip(lengths, known, strict=True)]
        elif short != long and context.level.sigma <= LAYOUT:
            at = int(spec.width == long)
            trained_length = facts.training_size // facts.latent.unit
            if lengths[at] > trained_length:
                found[at] = lengths[at] / min(lengths[at], math.ceil(trained_length * long / short))
        return found[0], found[1]

    return spacing


def _context(spec: RenderSpec, facts: ModelFacts, stages: tuple[Stage, ...]) -> WindowPolicy | None:
    """Pooled, in stages that are more than twice as long as the first, whose layout stands."""
    times = [_ratio(spec, facts) * stage.scale for stage in stages]
    begins = 0 if spec.is_laid_out else first_enlarged(spec)
    pooled = {i for i, each in enumerate(times) if i >= begins and each > FULL + 1e-6}
    if not (facts.rotary and pooled):
        return None
    from ..extrapolation.windows import pooled_windows

    windows = pooled_windows(_spacing(spec, facts))
    return lambda context, *layer: windows(context, *layer) if context.stage in pooled else None


def _note(num_stages: int, facts: ModelFacts) -> str:
    staged = f"{num_stages} stages" if num_stages > 1 else "one stage"
    if facts.rotary:
        return f"{staged}, positions interpolated, heads concentrated"
    return f"{staged}; {facts.family} rotates no positions, so that no head is concentrated"
