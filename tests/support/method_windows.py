"""Window policies for tests: windows of the trained size, fused with the canvas."""

from __future__ import annotations

from typing import Any

from frieze.cluster.attention import AttentionShape, ScaleFusion
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
