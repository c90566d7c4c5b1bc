"""Stages of growing size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..sampling.timestep_shift import shifted
from .method import Stage

if TYPE_CHECKING:
    from ..checkpoints.facts import ModelFacts
    from ..spec.render_spec import RenderSpec
    from ..spec.stage_spec import StageSpec

# Of the sigma at which a picture is first redrawn, that of all larger stages after it.
LATER = 0.75
# Fewest steps of a stage that redraws, where as many were asked for.
FEWEST = 4


def stages_of(spec: RenderSpec, default: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The spec's own cascade where it states one, else the recipe's."""
    if spec.stages is None:
        return default
    return tuple(Stage(**dict(stage)) for stage in spec.stages)


def redrawing(spec: RenderSpec, size: tuple[int, int], facts: ModelFacts) -> tuple[StageSpec, ...]:
    """Stages that redraw a picture of so many rows and columns at growing sizes, up to the spec's.

    Sides double at most, and none is drawn smaller than trained. The picture takes the place of
    the stage before the first; `start_of` the creativity is where that restarts, and later ones
    at 0.75 of it. A stage takes the share of all steps that its sigma is of 1, but 4 at least.
    """
    from ..spec.stage_spec import StageSpec

    side = math.sqrt(spec.height * spec.width)
    first = min(1.0, math.sqrt(size[0] * size[1]) / side)
    levels = max(1, math.ceil(-math.log2(first) - 1e-9))
    least = (facts.training_size - facts.latent.unit) / side
    scales = [scale for scale in evenly(first, levels)[1:-1] if scale > least] + [1.0]
    begins = [start_of(spec.creativity or 0.0) * (LATER if i else 1) for i in range(len(scales))]
    asked = spec.num_inference_steps
    return tuple(
        StageSpec(scale=scale, start=start, steps=max(min(FEWEST, asked), math.ceil(asked * start)))
        for scale, start in zip(scales, begins, strict=True)
    )


def start_of(creativity: float) -> float:
    """The sigma (of flow; else the part of the schedule) from which so free a redraw starts."""
    return 0.15 + 0.75 * creativity


def first_enlarged(spec: RenderSpec) -> int:
    """The first stage that draws over an enlarged picture: 0 where one was handed in for that."""
    return 0 if spec.redraws else 1


def from_trained_size(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """The picture at the trained area, then at its own size, each from noise; one where it fits."""
    scale = facts.training_size / math.sqrt(spec.height * spec.width)
    return (Stage(),) if scale >= 1 else (Stage(scale=scale), Stage())


def doubling(spec: RenderSpec, facts: ModelFacts, starts: Sequence[float]) -> tuple[Stage, ...]:
    """Stages 1/2^k .. 1/2, 1, the first no larger than the trained area; `starts` as in `begun`."""
    levels = doublings(spec, facts)
    begins = enumerate(begun(levels, starts))
    return tuple(Stage(scale=0.5 ** (levels - i), start=start) for i, start in begins)


def growing(spec: RenderSpec, facts: ModelFacts) -> tuple[float, ...]:
    """Scales of stages that grow evenly, by two at most, from the trained area to the picture's."""
    return evenly(1 / _ratio(spec, facts), doublings(spec, facts))


def evenly(first: float, levels: int) -> tuple[float, ...]:
    """Scales of a first stage, and of so many more, each as many times the one before it."""
    return tuple(first ** ((levels - i) / max(1, levels)) for i in range(levels + 1))


def is_beyond(spec: RenderSpec, facts: ModelFacts, scale: float = 1.0) -> bool:
    """Whether a stage's sides are longer than those of the trained area by a token or more.

    Trained sizes are rounded to tokens, so that the area alone does not tell.
    """
    side = scale * math.sqrt(spec.height * spec.width)
    return side >= facts.training_size + facts.latent.unit


def token_length(side: int, scale: float, facts: ModelFacts) -> int:
    """Tokens along a side of a stage, of so many pixels in the picture."""
    return max(1, round(side * scale / facts.latent.unit))


def from_known(spec: RenderSpec, facts: ModelFacts, first: float | None) -> tuple[float, ...]:
    """Scales that grow evenly, by two at most, from `first` or from the trained area."""
    known = facts.training_size / math.sqrt(spec.height * spec.width)
    slack = 1.0 if first is not None else 1 + facts.latent.unit / facts.training_size
    first = known if first is None else first
    return evenly(first, max(first < 1, math.ceil(-math.log2(first * slack) - 1e-9)))


def restarted(
    scales: Sequence[float],
    num_steps: int,
    restart: float,
    shifts: Sequence[float | None] | None = None,
) -> tuple[Stage, ...]:
    """Later stages take the last of as many steps as the first, from where these are so noisy.

    `restart` is the part of the steps that they leave out (FreeScale, CineScale: int(0.3 N) of N).
    Of flow a stage has its timestep shift, under which its first noise level lies.
    """
    steps = num_steps - int(restart * num_steps)
    left = steps / num_steps
    stages = [Stage(scale=scales[0], shift=shifts[0] if shifts else None)]
    for index, scale in enumerate(scales[1:], 1):
        shift = shifts[index] if shifts else None
        start = left if shift is None else shifted(left, shift)
        stages.append(Stage(scale=scale, start=start, steps=steps, shift=shift))
    return tuple(stages)


def doublings(spec: RenderSpec, facts: ModelFacts) -> int:
    """How many stages follow the first where each is at most twice as long and wide as the last."""
    return max(0, math.ceil(math.log2(_ratio(spec, facts)) - 1e-9))


def _ratio(spec: RenderSpec, facts: ModelFacts) -> float:
    """How much longer than those of the trained area a picture's sides are, of any shape."""
    return math.sqrt(spec.height * spec.width) / facts.training_size


def begun(levels: int, starts: Sequence[float]) -> tuple[float, ...]:
    """Sigmas of a first stage, from noise, and of `levels` more: the last of `starts` holds on."""
    return (1.0, *(starts[min(i, len(starts) - 1)] for i in range(levels)))
