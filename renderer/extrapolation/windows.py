"""Covers of a layer's tokens by windows, as published; integers alone, the same on every rank.

Sources: HiDiffusion (arXiv 2311.17528) for shifted windows; FreeScale (arXiv 2412.09626) and
DemoFusion (arXiv 2311.16973) for windows of the trained size and interleaved sub-grids.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

from frieze.cluster.attention import AttentionShape, Edge, FusionAxes, ScaleFusion, Window, Windows

from .method import StepContext, WindowPolicy
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


def fusing(axes: FusionAxes, *, fast: bool, jitter: Jitter, zeros: bool) -> WindowPolicy:
    """Fusion in every stage after the first, with windows that the seed, step and layer move."""

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if not context.stage:
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
