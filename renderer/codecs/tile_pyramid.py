"""A store's pyramid as files of tiles, whatever they are called: its levels, then further halves.

A level is read strip by strip, so that memory does not grow with the picture's height.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from ..store.follower import Follow
from ..store.layout import StoreLayout, halve
from ..store.store import Store
from .output import Output
from .tile_encoder import TileEncoder

TILE = 512  # pixels, as most stores' chunks: none is decoded twice


@dataclass(frozen=True)
class TileLevel:
    """A picture halved `index` times, in pixels."""

    index: int
    height: int
    width: int


@dataclass(frozen=True)
class Tile:
    """Where a tile lies: its column and row among others, its edges in its level's pixels."""

    level: TileLevel
    column: int
    row: int
    left: int
    top: int
    width: int
    height: int


def tile_levels(layout: StoreLayout, smallest: int = 1) -> list[TileLevel]:
    """The whole picture and its halves, until both sides are at most `smallest` pixels."""
    found = [TileLevel(0, layout.height, layout.width)]
    while max(found[-1].height, found[-1].width) > smallest:
        index = len(found)
        sides = (ceil(side / 2**index) for side in (layout.height, layout.width))
        found.append(TileLevel(index, *sides))
    return found


def tiles(level: TileLevel, row: int, side: int = TILE) -> Iterator[Tile]:
    """One row of a level's tiles, from the left; those at the edges are smaller."""
    top = row * side
    height = min(side, level.height - top)
    for column in range(ceil(level.width / side)):
        left = column * side
        yield Tile(level, column, row, left, top, min(side, level.width - left), height)


def level_rows(store: Store, index: int, top: int, bottom: int) -> np.ndarray:
    """Rows [rows, W, C] of a picture halved `index` times; beyond the store's levels of its last.

    Raises `StoreError` where they are not drawn yet.
    """
    if index < store.layout.num_levels:
        return store.read_rows(top, bottom, index)
    above = ceil(store.layout.height / 2 ** (index - 1))
    return halve(level_rows(store, index - 1, 2 * top, min(2 * bottom, above)))


def write_tiles(
    output: Output,
    levels: list[TileLevel],
    place: Callable[[Tile], Path],
    encoder: TileEncoder,
    workers: int | None = None,
    side: int = TILE,
) -> None:
    """Write a file for every tile of some levels, the whole picture first, as it is drawn.

    `place` says where a tile goes, `workers` are encoding threads (default: all cores), `side` is
    a tile's in pixels. Raises `StoreError` where the picture is not drawn, and not waited for.
    """
    colors = output.colors

    def write(tile: Tile, rows_HWC: np.ndarray) -> None:
        path = place(tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoder.encode(rows_HWC[:, tile.left : tile.left + tile.width]))

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for level, top, rows_HWC in _strips(output.store, levels, side, output.follow):
            row = list(tiles(level, top // side, side))
            shown_HWC = colors.rows(rows_HWC, pool)
            list(pool.map(write, row, [shown_HWC] * len(row)))


def _strips(
    store: Store, levels: list[TileLevel], side: int, follow: Follow
) -> Iterator[tuple[TileLevel, int, np.ndarray]]:
    """(level, first row, rows) of all levels; the halved ones once the picture is whole."""
    for level in levels:
        if level.index:
            continue
        for top, rows_HWC in store.in_order(side, wait=follow):
            yield level, top, rows_HWC
    store.wait_finished(wait=follow)
    for level in levels:
        if not level.index:
            continue
        for top in range(0, level.height, side):
            bottom = min(top + side, level.height)
            yield level, top, level_rows(store, level.index, top, bottom)
