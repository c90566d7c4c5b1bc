"""A model run for its FLOPs: its own modules on meta tensors, on one rank that has the canvas.

One prompt of one step of each kind is counted, and one of a step that changes nothing. Edits, and
what a method does to queries, keys and guides, are left out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frieze.cluster.attention import AttentionChange, AttentionShape
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import phantom
from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.kernels.flop_count import flop_count
from frieze.kernels.meta_attention import tracing
from frieze.kernels.meta_results import MetaResults

from ..extrapolation.method import Method
from ..files.library_errors import as_model_error
from ..models.family import BandPlace
from ..models.meta_models import treated
from .memory_trace import META, MemoryTrace, skeleton
from .stage_costs import RenderCost, StageCost, StepCost, WindowCost
from .step_kinds import StepKind

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoints.facts import ModelFacts
    from ..models.family import Guidance
    from ..spec.render_spec import RenderSpec
    from .stage_plan import StagePlan


def cost(
    facts: ModelFacts,
    spec: RenderSpec,
    stages: Sequence[StagePlan],
    mesh: Mesh,
    *,
    guidance: Guidance,
    method: Method,
) -> RenderCost:
    """What denoising costs, stage by stage; `ModelError` for a config that fails."""
    with as_model_error(Path(facts.folder), "be run as its configs say"):
        trace = FlopTrace(MemoryTrace(facts, spec, mesh, guidance, method))
        return RenderCost(tuple(trace.stage(n, stage) for n, stage in enumerate(stages)))


@torch.no_grad()
def encoding(facts: ModelFacts, spec: RenderSpec, stages: Sequence[StagePlan]) -> tuple[int, int]:
    """FLOPs of encoding what the stages without steps enlarge, and those of its attention.

    That asks all cells of a picture for each of them. `ModelError` for a config that fails.
    """
    total, attention, results = 0, 0, MetaResults()
    with as_model_error(Path(facts.folder), "be run as its configs say"):
        model, _ = skeleton(facts, spec)
        for stage in (stage for stage in stages if not stage.num_steps):
            canvas, downscale = stage.canvas, facts.latent.downscale
            frames, times = (spec.num_frames, 1) if facts.video else (1, spec.num_frames)
            size = (canvas.height * downscale, canvas.width * downscale)
            with (
                tracing("cpu"),
                band_mode(phantom(0, 1), [Band(0, canvas.height)], canvas=canvas),
                flop_count(results) as count,
            ):
                model.encoded(torch.empty((1, 3, frames, *size), device=META))
            total, attention = total + times * count.total, attention + times * count.attention
    return total, attention


@dataclass
class _Windows:
    """An attention modifier that gives each layer its windows of the kind's first step."""

    kind: StepKind
    # What each layer asked with, by its name: the map's rows and columns, and the windows.
    asked: dict[str, tuple[int, int, AttentionShape]] = field(default_factory=dict)

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """Queries and keys as they are, and windows."""
        return AttentionChange(q_BHSD, k_BHSD, shape=functools.partial(self._shape, layer))

    def _shape(self, layer: str, rows: int, columns: int) -> AttentionShape | None:
        windows = self.kind.method.windows
        assert windows is not None
        shape = windows(self.kind.contexts[0], layer, rows, columns)
        if shape is not None:
            self.asked[layer] = (*(shape.grid or (rows, columns)), shape)
        return shape


class FlopTrace:
    """Counts steps of a model without weights."""

    def __init__(self, traced: MemoryTrace) -> None:
        self._traced, self._direct = traced, dict[Canvas, int]()

    def stage(self, index: int, stage: StagePlan) -> StageCost:
        """Every kind of step of a stage; of none where it has no steps."""
        if not stage.num_steps:
            return StageCost(0, ())
        if (direct := self._direct.get(stage.canvas)) is None:
            direct = self._direct[stage.canvas] = self._flops(stage, StepKind(Method(), ()))[0]
        kinds = []
        for kind in self._traced.step_kinds(index, stage):
            flops, windows = (direct, ()) if kind.is_plain else self._flops(stage, kind)
            numbers = tuple(step + 1 for step in kind.steps or range(stage.num_steps))
            kinds.append(StepCost(numbers, flops, flops / direct, windows, kind.shape))
        return StageCost(direct, tuple(kinds), stage.guidance.num_halves)

    @torch.no_grad()
    def _flops(self, stage: StagePlan, kind: StepKind) -> tuple[int, tuple[WindowCost, ...]]:
        """Of one prompt of a step, and the windows it asked."""
        traced, band = self._traced, Band(0, stage.canvas.height)
        place = BandPlace(band, stage.canvas, traced.positions)
        x, _, halves = traced.state(stage, band)
        windows = _Windows(kind) if kind.is_windowed else None
        with (
            # The kernel of a processor has a formula for every precision.
            tracing("cpu"),
            conv_shape(kind.shape),
            treated(kind.alike),
            band_mode(phantom(0, 1), [band], canvas=stage.canvas, modifier=windows),
            flop_count(traced.results) as count,
        ):
            traced.model.denoised(x, stage.levels[0], halves[0], place, traced.guidance)
        return count.total, _summary(kind, windows)


def _summary(kind: StepKind, windows: _Windows | None) -> tuple[WindowCost, ...]:
    """Windows by the map they lie on; a layer that was stood in for attends as its like does."""
    if windows is None:
        return ()
    found: dict[tuple[object, ...], list[WindowCost]] = {}
    for layer in (layer for layer, each in kind.layers.items() if each):
        like = max(windows.asked, key=functools.partial(_kinship, layer))
        one = _window_cost(*windows.asked[like])
        key = (one.rows, one.columns, one.num_windows, one.fusion, one.grids)
        found.setdefault(key, []).append(one)
    return tuple(
        replace(max(group, key=lambda each: each.share), num_layers=len(group))
        for group in found.values()
    )


def _kinship(layer: str, other: str) -> int:
    """How many parts of two names are the same, from the first on."""
    pairs = zip(layer.split("."), other.split("."), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _window_cost(rows: int, columns: int, shape: AttentionShape) -> WindowCost:
    """Of one layer."""
    windows, fusion = shape.windows, shape.fusion
    tokens = max(
        len(windows.on_canvas(each.rows, rows)) * len(windows.on_canvas(each.columns, columns))
        for each in windows.windows
    )
    coarse = fusion.coarse if fusion else None
    return WindowCost(
        rows,
        columns,
        num_layers=1,
        num_windows=len(windows.windows),
        queries=tokens,
        keys=tokens,
        share=windows.num_pairs(Band(0, rows), rows, columns) / (rows * columns) ** 2,
        fusion=fusion.axes if fusion else None,
        grids=len(coarse.windows) if coarse else 0,
    )
