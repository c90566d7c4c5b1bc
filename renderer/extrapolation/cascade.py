"""Stages of growing size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .method import Stage

if TYPE_CHECKING:
    from ..checkpoints.facts import ModelFacts
    from ..spec.render_spec import RenderSpec


def stages_of(spec: RenderSpec, default: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The spec's own cascade where it states one, else the recipe's."""
    if spec.stages is None:
        return default
    return tuple(Stage(**stage.model_dump()) for stage in spec.stages)


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
    ratio, levels = _ratio(spec, facts), doublings(spec, facts)
    return tuple(ratio ** ((i - levels) / max(1, levels)) for i in range(levels + 1))


def doublings(spec: RenderSpec, facts: ModelFacts) -> int:
    """How many stages follow the first where each is at most twice as long and wide as the last."""
    return max(0, math.ceil(math.log2(_ratio(spec, facts)) - 1e-9))


def _ratio(spec: RenderSpec, facts: ModelFacts) -> float:
    """How much longer than those of the trained area a picture's sides are, of any shape."""
    return math.sqrt(spec.height * spec.width) / facts.training_size


def begun(levels: int, starts: Sequence[float]) -> tuple[float, ...]:
    """Sigmas of a first stage, from noise, and of `levels` more: the last of `starts` holds on."""
    return (1.0, *(starts[min(i, len(starts) - 1)] for i in range(levels)))
