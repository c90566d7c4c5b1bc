"""A model run for its cost: its own modules on meta tensors, as one rank that has the canvas, and
as each rank of those that share it.

On the one rank a prompt of one step of each kind is counted, and one of a step that changes
nothing; on each of many all of a step, what begins a stage, and decoding. What a method does to
queries, keys and guides is left out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frieze.cluster.attention import AttentionChange, AttentionShape
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import phantom
from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.kernels.flop_count import FlopCount, flop_count
from frieze.kernels.meta_attention import tracing
from frieze.kernels.meta_results import MetaResults
from frieze.kernels.work import Work

from ..costs.stage_costs import RankCost, Ranks, RenderCost, StageCost, StepCost, WindowCost
from ..extrapolation.method import Method
from ..files.library_errors import as_model_error
from ..models.family import BandPlace
from ..models.meta_models import treated
from .memory_trace import NUM_FRAME_GROUPS, NUM_PIECES
from .meta_render import META, MetaRender, skeleton
from .step_kinds import StepKind

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.strategies import Tiling

    from ..checkpoints.facts import ModelFacts
    from ..models.family import Guidance
    from ..spec.render_spec import RenderSpec
    from .stage_plan import StagePlan


MOST_TRACED = 8  # ranks whose steps in windows are run one by one; of more those alike stand in


def cost(
    facts: ModelFacts,
    spec: RenderSpec,
    stages: Sequence[StagePlan],
    mesh: Mesh,
    *,
    guidance: Guidance,
    method: Method,
    rows_per_block: int | None,
) -> RenderCost:
    """What a render costs, stage by stage; `ModelError` for a config that fails.

    The picture is decoded so many rows at a time; by another decoder than the model's where None.
    """
    with as_model_error(Path(facts.folder), "be run as its configs say"):
        trace = FlopTrace(MetaRender(facts, spec, mesh, guidance, method))
        costs = []
        for index, stage in enumerate(stages):
            before = stages[index - 1] if index else None
            costs.append(replace(trace.stage(index, stage), begin=trace.begin(before, stage)))
        decode = trace.decode(stages[-1], rows_per_block) if rows_per_block else ()
        return RenderCost(tuple(costs), decode)


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

    def __init__(self, traced: MetaRender) -> None:
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
            if tiling := self._traced.tiling(stage):
                flops = self._of_tiles(stage, tiling)
            steps = kind.steps or range(stage.num_steps)
            numbers, draws = zip(*((step + 1, stage.draws[step]) for step in steps), strict=True)
            ranks = self._ranks(
                stage.bands,
                functools.partial(self._step, stage, kind),
                num_alike=self._traced.mesh.guidance,
                is_even=not kind.is_windowed,
            )
            share = flops / direct
            kinds.append(StepCost(numbers, flops, share, windows, kind.shape, ranks, draws))
        return StageCost(direct, tuple(kinds), stage.guidance.num_halves)

    def _of_tiles(self, stage: StagePlan, tiling: Tiling) -> int:
        """FLOPs of one prompt of a step in tiles, and of its coarse canvas."""
        sides = [(Canvas(stage.canvas.frames, tiling.height, tiling.width), tiling.num_tiles)]
        sides += [(tiling.coarse, 1)] if tiling.coarse else []
        plain = StepKind(Method(), ())
        return sum(
            number * self._flops(replace(stage, canvas=canvas), plain)[0]
            for canvas, number in sides
        )

    def begin(self, before: StagePlan | None, stage: StagePlan) -> tuple[Ranks, ...]:
        """What comes before a stage's steps: the last one's picture is made, enlarged, encoded."""
        traced, spec = self._traced, self._traced.spec
        found = []
        if before is not None and stage.enlarge == "pixels" and before.num_steps:
            found.append(self.decode(before, before.align * traced.facts.latent.downscale))
        starts = before is None and (spec.init or spec.upscale) is not None
        if starts or (before is not None and stage.enlarge == "pixels"):
            found.append(self._ranks(stage.shares, functools.partial(self._encode, stage, False)))
        if traced.stays and before is not None and stage.num_steps:  # what is given, at its size
            found.append(self._ranks(stage.shares, functools.partial(self._encode, stage, False)))
        if traced.is_shown and stage.num_steps:
            found.append(self._ranks(stage.shares, functools.partial(self._encode, stage, True)))
        return tuple(found)

    def decode(self, stage: StagePlan, rows_per_block: int) -> Ranks:
        """The autoencoder makes a stage's picture, so many rows at a time."""
        return self._ranks(stage.shares, functools.partial(self._decode, stage, rows_per_block))

    def _ranks(
        self,
        bands: Sequence[Band],
        work: Callable[[int], Work],
        *,
        num_alike: int = 1,
        is_even: bool = True,
    ) -> Ranks:
        """The work of each band's rank, counted once of those alike; so many draw each band."""
        last, ulysses = len(bands) - 1, self._traced.mesh.ulysses
        found: dict[Hashable, list[int]] = {}
        for rank, band in enumerate(bands):
            key: Hashable = (band.rows, rank == 0, rank == last, rank % ulysses)
            if not is_even and len(bands) <= MOST_TRACED:
                key = rank
            found.setdefault(key, []).append(rank)
        return tuple(
            RankCost(num_alike * len(ranks), work(ranks[len(ranks) // 2]))
            for ranks in found.values()
        )

    @contextmanager
    def _counted(self) -> Iterator[FlopCount]:
        """The kernel of a processor has a formula for every precision."""
        with tracing("cpu"), flop_count(self._traced.results) as count, torch.no_grad():
            yield count

    def _step(self, stage: StagePlan, kind: StepKind, rank: int) -> Work:
        windows = _Windows(kind) if kind.is_windowed else None
        with self._counted() as count:
            self._traced.step(stage, rank, kind, windows, count)
        if self._traced.tiling(stage) is None:
            return count.work
        more = self._traced.tiles_of(stage, rank) - 1
        if more < 1:
            return count.work
        with self._counted() as batch:
            self._traced.batch(stage, rank)
        return count.work + batch.work.times(more)

    def _encode(self, stage: StagePlan, is_frame: bool, rank: int) -> Work:
        traced = self._traced
        num_frames, times = traced.num_frames(stage), 1
        if not traced.facts.video:  # it takes each frame
            num_frames, times = 1, traced.spec.num_frames
        with self._counted() as count:
            traced.encoding(stage, rank, None if is_frame else num_frames, count)
        return count.work.times(1 if is_frame else times)

    def _decode(self, stage: StagePlan, rows_per_block: int, rank: int) -> Work:
        """Two pieces of pictures and three groups of frames of clips: others are like the last."""
        traced = self._traced
        by_rows = traced.model.tail is not None
        left = traced.num_frames(stage)
        if by_rows:
            left = stage.shares[rank].rows * traced.facts.latent.downscale
        work, last, sizes = Work(), Work(), dict[int, int]()
        with self._counted() as count:
            for piece in traced.pieces(stage, rows_per_block, rank, count):
                where, dim = (piece.row, -2) if by_rows else (piece.frame, 2)
                if where in sizes:
                    continue
                sizes[where] = size = piece.pixels_BCTHW.shape[dim]
                work, last, left = count.work, count.work - work, left - size
                if len(sizes) == (NUM_PIECES if by_rows else NUM_FRAME_GROUPS):
                    break
        return work + last.times(left / size)

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
        key = (one.rows, one.columns, one.num_windows, one.fusion, one.grids, one.pooled)
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
    pairs, pooled = windows.num_pairs(Band(0, rows), rows, columns), 0
    if shape.pooled is not None:
        pairs = shape.pooled.num_pairs(Band(0, rows))
        pooled = shape.pooled.num_outside
    return WindowCost(
        rows,
        columns,
        num_layers=1,
        num_windows=len(windows.windows),
        queries=tokens,
        keys=tokens,
        share=pairs / (rows * columns) ** 2,
        fusion=fusion.axes if fusion else None,
        grids=len(coarse.windows) if coarse else 0,
        pooled=pooled,
    )
