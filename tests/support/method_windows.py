"""Window policies for tests: fused with the canvas, or such that attention decides the peak."""

from __future__ import annotations

from typing import Any

from frieze.cluster.attention import AttentionShape, ScaleFusion, Windows
from frieze.renderer.extrapolation.method import WindowPolicy
from frieze.renderer.extrapolation.windows import interleaved_windows, trained_windows


def fused(axes: Any, coarse: bool) -> WindowPolicy:
    """Windows of half the map on the largest maps, fused with the canvas or sub-grids of it."""

    def windows(context: Any, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if not layer.startswith(("down_blocks.0", "down_blocks.1", "up_blocks")):
            return None
        grids = interleaved_windows(rows, columns, (2, 2)) if coarse else None
        local = trained_windows(rows, columns, (rows // 2, columns // 2))
        return AttentionShape(local, ScaleFusion(3, axes=axes, coarse=grids))

    return windows


def overlapping(context: Any, layer: str, rows: int, columns: int) -> AttentionShape:
    """Half the map at every column: stacked along the batch they are many times the canvas."""
    half = columns // 2
    spans = [range(first, first + half) for first in range(columns - half + 1)]
    return AttentionShape(Windows.product([range(rows)], spans))


def softened(context: Any, layer: str, rows: int, columns: int) -> AttentionShape:
    """One window, fused by a Gaussian that reaches fifteen rows beyond a band."""
    return AttentionShape(
        Windows.product([range(rows)], [range(columns)]), ScaleFusion(31, axes="hw")
    )
