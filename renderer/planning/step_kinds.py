"""Steps of a stage that a method changes alike: one of each kind tells what all of them need.

Windows move and follow their seed from step to step, but how many there are, and what they are
fused with, changes seldom; so does the geometry of convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from frieze.cluster.layout import Band

from ..extrapolation.method import Method, StepContext

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import AttentionChange, AttentionShape, KeyTurns
    from frieze.cluster.bands import ConvShape

    from ..checkpoints.facts import ModelFacts
    from .stage_plan import StagePlan


class WindowKind(NamedTuple):
    """How many windows a layer's queries ask, and what these are fused with."""

    num_windows: int
    fusion: Hashable = None


@dataclass(frozen=True)
class StepKind:
    """Steps whose convolutions have one geometry and whose layers attend in windows of one kind.

    `layers` has the windows of each layer that attends to the canvas, None for all of it.
    """

    method: Method
    contexts: tuple[StepContext, ...]
    shape: ConvShape | None = None
    layers: Mapping[str, WindowKind | None] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        """Their numbers, from 0."""
        return tuple(context.step for context in self.contexts)

    @property
    def is_plain(self) -> bool:
        """Whether these steps change nothing of the network."""
        return self.shape is None and not self.is_windowed

    @property
    def is_windowed(self) -> bool:
        """Whether any layer attends in windows."""
        return any(self.layers.values())

    @property
    def form(self) -> Hashable:
        """What a smaller stage may share: the geometry, and what is fused with windows."""
        fused = frozenset(kind and kind.fusion for kind in self.layers.values())
        return _geometry(self.shape), fused

    def alike(self, layer: str, other: str) -> bool:
        """Whether the second of two layers is changed as the first is, and by no geometry."""
        convolutions = self.method.convolutions
        hooked: list[str] = []
        if convolutions is not None:
            hooked += convolutions.layers
            hooked += [name for pool in convolutions.pools for name in (pool.after, pool.until)]
        if any(f"{name}.".startswith(f"{other}.") for name in hooked):
            return False
        return self._within(layer) == self._within(other)

    def _within(self, layer: str) -> dict[str, WindowKind | None]:
        names = [name for name in self.layers if f"{name}.".startswith(f"{layer}.")]
        return {name.removeprefix(layer): self.layers[name] for name in names}


def step_kinds(
    method: Method,
    facts: ModelFacts,
    seed: int,
    index: int,
    stage: StagePlan,
    layers: Sequence[str],
) -> tuple[StepKind, ...]:
    """The kinds of a stage's steps in the order of their first; `layers` attend to the canvas."""
    if method.windows is None and method.convolutions is None:
        return (StepKind(method, ()),)
    found: dict[
        Hashable, tuple[ConvShape | None, dict[str, WindowKind | None], list[StepContext]]
    ] = {}
    for step in range(stage.num_steps):
        context = StepContext.of(facts, seed, stage.canvas, stage.levels, stage=index, step=step)
        shape = method.convolutions.shape(context) if method.convolutions else None
        shape = None if _geometry(shape) is None else shape
        each = {layer: _attention(method, context, layer) for layer in layers}
        key = (_geometry(shape), tuple(each.values()))
        found.setdefault(key, (shape, each, []))[2].append(context)
    return tuple(
        StepKind(method, tuple(contexts), shape, each) for shape, each, contexts in found.values()
    )


def _geometry(shape: ConvShape | None) -> Hashable:
    if shape is None or not (shape.convs or shape.pools):
        return None
    return frozenset(shape.convs.items()), shape.pools


def _attention(method: Method, context: StepContext, layer: str) -> WindowKind | None:
    """The kind of a layer's windows, asked as if its tokens were the canvas' cells."""
    if method.windows is None or not context.is_beyond:
        return None
    canvas = context.canvas
    shape = method.windows(context, layer, canvas.height, canvas.width)
    if shape is None:
        return None
    fusion = shape.fusion
    fused = (fusion.size, fusion.axes, fusion.coarse is None) if fusion else None
    return WindowKind(len(shape.windows.windows), fused)


@dataclass(frozen=True)
class TurnedKeys:
    """An attention modifier that gives every layer the same turns of keys."""

    turns: KeyTurns

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """Queries and keys as they are, and the turns."""
        from frieze.cluster.attention import AttentionChange

        return AttentionChange(q_BHSD, k_BHSD, turns=self.turns)


@dataclass
class HeaviestWindows:
    """An attention modifier that gives each layer those windows, of all steps, that gather most.

    `band` are the rows that a rank asks for, with those of its Ulysses group, of the latent
    canvas. One run then needs what the worst step needs.
    """

    kind: StepKind
    band: Band

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """Queries and keys as they are, and windows."""
        from frieze.cluster.attention import AttentionChange

        shape = functools.partial(self.shape, layer) if self.kind.is_windowed else None
        return AttentionChange(q_BHSD, k_BHSD, shape=shape)

    def shape(self, layer: str, rows: int, columns: int) -> AttentionShape | None:
        """The heaviest of all steps; None where none has windows here."""
        windows = self.kind.method.windows
        assert windows is not None
        asked = [windows(context, layer, rows, columns) for context in self.kind.contexts]
        shapes = dict.fromkeys(shape for shape in asked if shape is not None)
        return max(shapes, key=lambda shape: self._gathered(shape, rows), default=None)

    def _gathered(self, shape: AttentionShape, rows: int) -> int:
        """Rows held at once by a rank, those of other bands twice: they are in flight first."""
        height = self.kind.contexts[0].canvas.height
        tall = shape.grid[0] if shape.grid else rows
        own = Band(self.band.start * tall // height, self.band.stop * tall // height)
        most = 0
        for part in shape.windows.exchanges(tall):
            needed = part.rows_needed(own, tall)
            foreign = sum(not own.start <= row < own.stop for row in needed)
            most = max(most, len(needed) + foreign)
        return most
