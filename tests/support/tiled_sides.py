"""Sides of canvases that overlapping tiles cover, moved or not: for what holds of all of them."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from frieze.cluster.layout import tile_starts


class TiledSide(NamedTuple):
    """Tiles of `size` cells, multiples of `unit`, of which neighbours share `overlap` at least."""

    unit: int
    length: int
    size: int
    overlap: int
    starts: tuple[int, ...]


@st.composite
def tiled_sides(draw: st.DrawFn) -> TiledSide:
    """A side of up to sixty units more than one tile."""
    unit, units = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    size, overlap = units * unit, draw(st.integers(0, units - 1)) * unit
    length = size + draw(st.integers(0, 60)) * unit
    steps = units - overlap // unit
    offset = draw(st.none() | st.integers(0, steps - 1).map(lambda step: step * unit))
    starts = tuple(tile_starts(length, size, overlap, unit, offset))
    return TiledSide(unit, length, size, overlap, starts)
