"""Tiles of a store's pictures, finished or not, numbered as Deep Zoom numbers them.

Level n of Deep Zoom has ceil(side / 2^(top - n)) pixels, the top one all of them and level 0 one
(Microsoft's Deep Zoom file format). The store's pyramid halves alike, so its levels are read as
they are; what it does not have yet, or ends before, is halved from the level below.
Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from ..codecs import picture_rows
from ..codecs.tile_pyramid import TILE
from ..errors import StoreError
from ..store.arrays import rows_of
from ..store.layout import halve
from ..store.provenance import carried_by
from ..store.store import Store
from .drawn_blocks import DrawnBlocks


@dataclass(frozen=True)
class Tile:
    """Pixels as they are stored, and which of them are drawn; `fault` says what cannot be read.

    Where all blocks beneath are drawn, `is_whole`: it will never be another.
    """

    pixels_HWC: np.ndarray
    drawn_HW: np.ndarray
    is_whole: bool
    fault: str = ""

    def png(self, icc: bytes | None = None) -> bytes:
        """A PNG of 8 bits, to the bit, with alpha where something is missing."""
        pixels = picture_rows.of_bits(self.pixels_HWC, 8)
        if not self.drawn_HW.all():
            pixels = np.dstack([pixels, np.where(self.drawn_HW, 255, 0).astype(np.uint8)])
        file = io.BytesIO()
        # It goes no further than a browser: a smaller file would cost more than it saves.
        Image.fromarray(pixels).save(file, "PNG", compress_level=1, icc_profile=icc)
        return file.getvalue()


class TileCache:
    """The tiles that were asked for last, of all stores, up to so many bytes; thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.num_bytes = 0
        self._tiles: OrderedDict[object, Tile] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, key: object) -> Tile | None:
        """The tile of that key, if it is still here."""
        with self._turn:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: object, tile: Tile) -> None:
        """Keep a tile; those that were asked for longest ago make room."""
        with self._turn:
            if old := self._tiles.pop(key, None):
                self.num_bytes -= _size(old)
            self._tiles[key] = tile
            self.num_bytes += _size(tile)
            while self.num_bytes > self.most_bytes and len(self._tiles) > 1:
                _, gone = self._tiles.popitem(last=False)
                self.num_bytes -= _size(gone)


def _size(tile: Tile) -> int:
    return tile.pixels_HWC.nbytes + tile.drawn_HW.nbytes


@dataclass
class TilePyramid:
    """All tiles of one store, each frame a pyramid of its own."""

    store: Store
    cache: TileCache
    _known: tuple[int, DrawnBlocks] | None = None
    _number: int = field(default_factory=itertools.count().__next__)  # its tiles in the cache

    @cached_property
    def icc(self) -> bytes | None:
        """The profile of its pixels, None for sRGB."""
        return carried_by(self.store).icc

    @property
    def top(self) -> int:
        """The number of the level of full size."""
        layout = self.store.layout
        return math.ceil(math.log2(max(layout.height, layout.width)))

    def size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of a level in pixels."""
        scale = 2 ** (self.top - level)
        layout = self.store.layout
        return math.ceil(layout.height / scale), math.ceil(layout.width / scale)

    def counts(self, level: int) -> tuple[int, int]:
        """(rows, columns) of a level in tiles."""
        height, width = self.size(level)
        return math.ceil(height / TILE), math.ceil(width / TILE)

    def has(self, level: int, column: int, row: int, frame: int) -> bool:
        """Whether there is such a tile."""
        if not (0 <= level <= self.top and 0 <= frame < (self.store.layout.frames or 1)):
            return False
        rows, columns = self.counts(level)
        return 0 <= row < rows and 0 <= column < columns

    def tile(self, level: int, column: int, row: int, frame: int = 0) -> Tile:
        """A tile as far as it is drawn; raises `StoreError` where there is none of that number."""
        if not self.has(level, column, row, frame):
            raise StoreError(f"no tile {column}_{row} of level {level}, frame {frame}")
        return self._tile(self.top - level, column, row, frame, self._done())

    def _done(self) -> DrawnBlocks:
        """Blocks that are drawn, as the journal had them when it last grew."""
        size, known = self.store.journal.size, self._known
        if known is None or known[0] != size:
            self._known = known = size, DrawnBlocks(self.store.done())
        return known[1]

    def _tile(self, index: int, column: int, row: int, frame: int, done: DrawnBlocks) -> Tile:
        """The same by the store's numbers of levels, 0 the largest.

        How many blocks beneath are drawn tells one state of a tile from the next: a block that was
        lost and is drawn again has the same pixels.
        """
        rows, columns = self._blocks(index, column, row)
        drawn = done.within(frame, rows, columns)
        if not drawn:  # however many are beneath
            return self._empty(index, column, row)
        is_finished = self.store.is_complete
        key = (self._number, index, column, row, frame, len(drawn), is_finished)
        if (kept := self.cache.get(key)) is not None:
            return kept
        is_read = index < self.store.layout.num_levels and (
            is_finished or self.store.layout.levels[index].by_block
        )
        is_whole = len(drawn) == len(rows) * len(columns)
        tile = self._read(index, column, row, frame, is_whole, drawn) if is_read else None
        if tile is None:
            tile = self._halved(index, column, row, frame, done)
        if not tile.fault:
            self.cache.put(key, tile)
        return tile

    def _place(self, index: int, column: int, row: int) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of a tile in the pixels of its level."""
        height, width = self.size(self.top - index)
        top, left = row * TILE, column * TILE
        return top, min(top + TILE, height), left, min(left + TILE, width)

    def _blocks(self, index: int, column: int, row: int) -> tuple[range, range]:
        """Rows and columns of blocks beneath a tile."""
        place, layout, scale = self._place(index, column, row), self.store.layout, 2**index
        sides = (layout.height, layout.height, layout.width, layout.width)
        top, bottom, left, right = (min(p * scale, n) for p, n in zip(place, sides, strict=True))
        height, width = layout.block
        return (
            range(top // height, math.ceil(bottom / height)),
            range(left // width, math.ceil(right / width)),
        )

    def _empty(self, index: int, column: int, row: int) -> Tile:
        """A tile of which nothing is drawn."""
        top, bottom, left, right = self._place(index, column, row)
        shape = bottom - top, right - left
        return Tile(np.zeros((*shape, 3), self.store.layout.dtype), np.zeros(shape, bool), False)

    def _read(
        self,
        index: int,
        column: int,
        row: int,
        frame: int,
        is_whole: bool,
        drawn: list[tuple[int, int]],
    ) -> Tile | None:
        """A tile of a level that is there; None where that one is damaged and no block's own."""
        place = self._place(index, column, row)
        top, _, left, _ = place
        if is_whole:
            try:
                pixels_HWC = self._pixels(index, place, frame)
                return Tile(pixels_HWC, np.ones(pixels_HWC.shape[:2], bool), True)
            except StoreError as error:
                fault = str(error)
            if not self.store.layout.levels[index].by_block:
                return None
        else:
            fault = ""
        tile = self._empty(index, column, row)
        pixels_HWC, drawn_HW = tile.pixels_HWC, tile.drawn_HW
        # Blocks of full width or height may be one that is cut: what is inside of the tile counts.
        for run in self._runs(index, place, drawn, one_by_one=bool(fault)):
            try:
                found_HWC = self._pixels(index, run, frame)
            except StoreError as error:
                fault = str(error)
                continue
            here = (slice(run[0] - top, run[1] - top), slice(run[2] - left, run[3] - left))
            pixels_HWC[here], drawn_HW[here] = found_HWC, True
        return Tile(pixels_HWC, drawn_HW, False, fault)

    def _runs(
        self,
        index: int,
        place: tuple[int, int, int, int],
        drawn: list[tuple[int, int]],
        *,
        one_by_one: bool,
    ) -> Iterator[tuple[int, int, int, int]]:
        """Parts of a tile that are drawn, blocks side by side as one."""
        rows, columns = (side / 2**index for side in self.store.layout.block)
        runs = [
            [at for _, at in group]
            for _, group in itertools.groupby(enumerate(drawn), lambda x: (x[1][0], x[1][1] - x[0]))
        ]
        for run in [[at] for at in drawn] if one_by_one else runs:
            top, bottom = int(run[0][0] * rows), int((run[0][0] + 1) * rows)
            left, right = int(run[0][1] * columns), int((run[-1][1] + 1) * columns)
            yield (
                *(max(top, place[0]), min(bottom, place[1])),
                *(max(left, place[2]), min(right, place[3])),
            )

    def _pixels(self, index: int, place: tuple[int, int, int, int], frame: int) -> np.ndarray:
        """Pixels [H, W, C] of a part of a level."""
        layout, arrays = self.store.layout, self.store.arrays
        lead = layout.lead(None if layout.frames is None else frame)
        region = (*lead, slice(*place[:2]), slice(*place[2:]))
        return rows_of(arrays.read(str(index), arrays.pixels[index], region))

    def _halved(self, index: int, column: int, row: int, frame: int, done: DrawnBlocks) -> Tile:
        """A tile made of the four below it, by the store's own 2x2 mean."""
        rows, columns = self.counts(self.top - index + 1)
        parts = [
            [
                self._tile(index - 1, x, y, frame, done)
                for x in range(2 * column, min(2 * column + 2, columns))
            ]
            for y in range(2 * row, min(2 * row + 2, rows))
        ]
        pixels_HWC = np.vstack([np.hstack([t.pixels_HWC for t in line]) for line in parts])
        drawn_HW = np.vstack([np.hstack([t.drawn_HW for t in line]) for line in parts])
        tiles = [tile for line in parts for tile in line]
        faults = [tile.fault for tile in tiles if tile.fault]
        return Tile(
            halve(pixels_HWC),
            _all_of_four(drawn_HW),
            all(tile.is_whole for tile in tiles),
            faults[0] if faults else "",
        )


def _all_of_four(drawn_HW: np.ndarray) -> np.ndarray:
    """Whether all pixels that a mean is of are drawn; a last odd one is its own neighbour."""
    rows, columns = (side % 2 for side in drawn_HW.shape)
    even = np.pad(drawn_HW, ((0, rows), (0, columns)), mode="edge")
    result: np.ndarray = even[0::2, 0::2] & even[1::2, 0::2] & even[0::2, 1::2] & even[1::2, 1::2]
    return result
