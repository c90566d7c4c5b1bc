"""Covers of a layer's tokens by windows, as published; integers alone, the same on every rank.

Sources: HiDiffusion (arXiv 2311.17528) for shifted windows; FreeScale (arXiv 2412.09626) and
DemoFusion (arXiv 2311.16973) for windows of the trained size and interleaved sub-grids.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from frieze.cluster.attention import (
    AttentionShape,
    Edge,
    FusionAxes,
    PooledContext,
    PooledDim,
    ScaleFusion,
    Window,
    Windows,
)

from ..checkpoints.facts import ModelFacts
from ..spec.attend import Attend, Schedule
from .method import Method, StepContext, TokenSpacing, WindowPolicy
from .method_options import Jitter, OddMap

# (lowest, highest) -> a whole number between them, both possible: by how much a window moves.
Draw = Callable[[int, int], int]

# Blocks whose self-attention HiDiffusion gives windows, by a U-Net's layout: the largest maps'.
WINDOWED = {
    "sd15": ("down_blocks.0.", "up_blocks.3."),
    "sdxl": ("down_blocks.1.", "up_blocks.1."),
}

_MASK = 2**64 - 1


def shifted_windows(rows: int, columns: int, shift: int) -> Windows:
    """Two by two windows of half the map, moved by `shift` quarters of a window round its edges.

    HiDiffusion's MSW-MSA, `shift` 0 to 3.  As released nothing moves, columns neither, where a
    quarter of the window's rows is less than one.  Of an odd map the second windows are one row or
    column shorter; the release resizes such maps to even ones.
    """
    half_rows, half_columns = -(-rows // 2), -(-columns // 2)
    quarter = half_rows // 4
    top, left = (shift * quarter, shift * (half_columns // 4)) if quarter else (0, 0)
    return Windows.product(
        (range(top, top + half_rows), range(top + half_rows, top + rows)),
        (range(left, left + half_columns), range(left + half_columns, left + columns)),
        "wrap",
    )


def shifted_shape(rows: int, columns: int, shift: int, odd: OddMap = "cut") -> AttentionShape:
    """Attention in `shifted_windows`; `resize` gives odd maps even windows, as the release does.

    It resizes them bicubically to even rows and columns, and what they answer back.
    """
    grid = (rows + rows % 2, columns + columns % 2)
    if odd == "cut" or grid == (rows, columns):
        return AttentionShape(shifted_windows(rows, columns, shift))
    return AttentionShape(shifted_windows(*grid, shift), grid=grid)


def interleaved_windows(rows: int, columns: int, steps: tuple[int, int]) -> Windows:
    """Every sub-grid of each `steps[0]`-th row and `steps[1]`-th column: dilated sampling."""
    return Windows.product(
        [range(first, rows, steps[0]) for first in range(steps[0])],
        [range(first, columns, steps[1]) for first in range(steps[1])],
    )


def trained_windows(
    rows: int,
    columns: int,
    window: tuple[int, int],
    draw: Draw | None = None,
    *,
    edge: Edge = "cut",
    separable: bool = True,
) -> Windows:
    """Windows of the trained size every half window, each moved by up to an eighth of itself.

    Separable, a row of windows moves its rows alike and a column of windows its columns: they can
    be computed together.  As FreeScale released them (`separable=False`, `edge="zeros"`) every
    window draws for itself, row by row, first for its columns and then for its rows.  A window at
    an edge moves outwards alone, one that spans the map not at all, and `draw` is not asked then;
    None moves none.  Every token stays in a window.
    """
    spans = [_half_steps(rows, window[0]), _half_steps(columns, window[1])]
    if separable:
        moved_rows = [_moved(span, rows, draw) for span in spans[0]]
        moved_columns = [_moved(span, columns, draw) for span in spans[1]]
        return Windows.product(moved_rows, moved_columns, edge)
    windows = []
    for of_rows in spans[0]:
        for of_columns in spans[1]:
            across = _moved(of_columns, columns, draw)
            windows.append(Window(_moved(of_rows, rows, draw), across))
    return Windows(tuple(windows), edge)


def fused_shape(
    rows: int,
    columns: int,
    scale: tuple[float, float],
    draw: Draw | None = None,
    *,
    axes: FusionAxes = "hwc",
    fast: bool = False,
    separable: bool = True,
    zeros: bool = True,
) -> AttentionShape:
    """FreeScale's scale fusion on a canvas that is `scale` times the trained size.

    Windows have the canvas' aspect, and their longer side is the trained one. The Gaussian spans
    2 s - 1 tokens, s being the larger scale in whole numbers, as in the authors' code. `fast` asks
    interleaved grids of the trained size instead of the canvas. Where windows move each for itself
    their tokens beyond the canvas are `zeros`, which mean nothing to biased or normed keys.
    """
    largest = max(1.0, *scale)
    window = (max(1, round(rows / largest)), max(1, round(columns / largest)))
    edge: Edge = "cut" if separable or not zeros else "zeros"
    local = trained_windows(rows, columns, window, draw, edge=edge, separable=separable)
    down, across = (min(max(1, round(s)), n) for s, n in zip(scale, (rows, columns), strict=True))
    coarse = interleaved_windows(rows, columns, (down, across)) if fast else None
    size = 2 * math.ceil(largest - 1e-9) - 1
    return AttentionShape(local, ScaleFusion(size, axes=axes, coarse=coarse))


def fusing(
    axes: FusionAxes, *, fast: bool, jitter: Jitter, zeros: bool, first: int = 1
) -> WindowPolicy:
    """Fusion in every stage from `first` on, with windows that the seed, step and layer move."""

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if context.stage < first:
            return None
        draw = seeded(f"{context.seed}/{context.stage}/{context.step}/{layer}")
        return fused_shape(
            rows,
            columns,
            context.scale,
            None if jitter == "none" else draw,
            axes=axes,
            fast=fast,
            separable=jitter != "released",
            zeros=zeros,
        )

    return windows


@functools.lru_cache(256)
def pooled_shape(
    rows: int, columns: int, scale: tuple[float, float], spacing: tuple[float, float]
) -> AttentionShape | None:
    """Windows of the trained size, `scale` times smaller than the canvas, and its rest pooled.

    Blocks are as wide as the `spacing`, how many tokens turn as far as one did in training, so
    that keys within a block turn by less than one radian.  None where nothing is pooled.
    """
    down, across = (
        PooledDim.even(
            length, math.ceil(length / max(1.0, apart) - 1e-9), max(1, round(length / larger))
        )
        for length, larger, apart in zip((rows, columns), scale, spacing, strict=True)
    )
    return AttentionShape.of_pooled(PooledContext(down, across))


def pooled_windows(spacing: TokenSpacing) -> WindowPolicy:
    """Windows of the trained size and the rest of the canvas pooled, as positions are spaced."""

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        return pooled_shape(rows, columns, context.scale, spacing(context))

    return windows


def seeded(key: str) -> Draw:
    """Draws that `key` alone decides: the same on every machine, rank and resumption.

    The crc32 of the key starts splitmix64 (public domain, Vigna).
    """
    state = zlib.crc32(key.encode())

    def draw(lowest: int, highest: int) -> int:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return lowest + (mixed ^ (mixed >> 31)) % (highest - lowest + 1)

    return draw


def shifts(key: str, step: int) -> int:
    """Quarters by which `shifted_windows` move at a step, 0 to 3, never twice the same in a row.

    HiDiffusion draws them anew at every call; here `key` decides.
    """
    draw = seeded(key)
    return sum(draw(1, 3) if index else draw(0, 3) for index in range(step + 1)) % 4


def _half_steps(length: int, window: int) -> Sequence[range]:
    """Ranges of a window every half of it; the last ends where the map does."""
    if length <= window:
        return [range(length)]
    step = max(1, window // 2)
    starts = [*range(0, length - window, step), length - window]
    return [range(start, start + window) for start in starts]


def _moved(span: range, length: int, draw: Draw | None) -> range:
    at_start, at_end = span.start == 0, span.stop == length
    most = len(span) // 8
    if draw is None or not most or (at_start and at_end):
        return span
    by = draw(0 if at_end else -most, 0 if at_start else most)
    return range(span.start + by, span.stop + by)


def attending(method: Method, schedules: Sequence[Schedule | None], facts: ModelFacts) -> Method:
    """The method, its attention in each stage by a schedule, where there is one.

    `full` is the whole canvas.  `pooled` is a window of the trained size, and the rest of the
    canvas as means of keys and values over blocks, each as wide as a token was in training.
    `shifted` are HiDiffusion's windows, `windows` those of the trained size every half of them,
    averaged, and `fused` these for the coarse with the canvas for the fine (FreeScale).
    """

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if (schedule := schedules[context.stage]) is None:
            own = method.windows
            return own(context, layer, rows, columns) if own else None
        kind = _kind(schedule, facts.schedule.time(context.level))
        policy = _policy(kind, method, facts)
        return policy(context, layer, rows, columns) if policy else None

    return replace(method, windows=windows)


def _kind(schedule: Schedule, time: float) -> Attend:
    """The last whose noise level is not below this one."""
    return [each for each in schedule if each.start >= time][-1].kind


def _policy(kind: Attend, method: Method, facts: ModelFacts) -> WindowPolicy | None:
    if kind == "pooled":
        assert method.token_spacing is not None
        return pooled_windows(method.token_spacing)
    policies: dict[str, WindowPolicy] = {
        "shifted": functools.partial(_shifted, facts),
        "windows": _trained,
        "fused": functools.partial(_fused, facts),
    }
    return policies.get(kind)


def _shifted(
    facts: ModelFacts, context: StepContext, layer: str, rows: int, columns: int
) -> AttentionShape | None:
    """Of a U-Net the largest maps alone, as HiDiffusion has it."""
    if facts.attentions:
        blocks = WINDOWED["sdxl" if not facts.attentions[0] else "sd15"]
        if not layer.startswith(blocks):
            return None
    key = f"{context.seed}/{context.stage}/{layer}"
    return shifted_shape(rows, columns, shifts(key, context.step))


def _trained(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape:
    down, across = (max(1.0, scale) for scale in context.scale)
    window = (math.ceil(rows / down), math.ceil(columns / across))
    return AttentionShape(trained_windows(rows, columns, window))


def _fused(
    facts: ModelFacts, context: StepContext, layer: str, rows: int, columns: int
) -> AttentionShape:
    """Where text is joined to the image's tokens features cannot be fused, rows and columns can."""
    draw = seeded(f"{context.seed}/{context.stage}/{context.step}/{layer}")
    axes: FusionAxes = "hwc" if facts.attentions else "hw"
    return fused_shape(rows, columns, context.scale, draw, axes=axes)
