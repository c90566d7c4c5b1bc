"""One AVIF written from the top down: a grid of tiles, each encoded by itself.

A grid is a picture derived from others that lie side by side (HEIF, ISO/IEC 23008-12, 6.6.2.3); all
have one size, and what reaches beyond the right and lower edge is not shown. So no more than a row
of tiles is in memory. The boxes come first and the tiles after them: their places are filled in
when they are known. Boxes: AV1 Image File Format, sections 2 and 4.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

WHOLE = 1024  # sides of what is one tile
TILE_ROWS, TILE_COLUMNS, STEP = 512, 1024, 64  # of others; columns are more where they must be
LEAST_TILE = 64  # of a grid: MIAF, ISO/IEC 23000-22
# libheif opens no file of more than 256 items: tiles, two grids, EXIF and XMP.
MOST_TILES = 252
ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
XMP = b"application/rdf+xml\0"
ESSENTIAL = FULL_RANGE = 0x80
# Primaries, curve and matrix (ITU-T H.273): sRGB's, or what the profile says.
SRGB, OF_PROFILE = (1, 13, 6), (2, 2, 6)
START = b"ftypavif\0\0\0\0avifmif1miaf"

Encode = Callable[[np.ndarray], bytes]


@dataclass(frozen=True)
class Described:
    """What stands beside the pixels: their bits, EXIF as a TIFF, XMP, a profile, its numbers."""

    bits: int
    exif: bytes
    xmp: bytes
    icc: bytes
    code: tuple[int, int, int] = SRGB


@dataclass
class _Item:
    """A part of the file: its kind, its properties by number, and where its bytes lie."""

    kind: bytes
    properties: list[int] = field(default_factory=list)
    is_hidden: bool = False
    offset: int = 0
    length: int = 0


def tile_sides(size: tuple[int, int], *, has_alpha: bool) -> tuple[int, int]:
    """(rows, columns) of a tile of a picture of so many rows and columns; of one tile, its own.

    Wider where they would be too many: a row of tiles is what is in memory.
    """
    if max(size) <= WHOLE:
        return size
    down = -(-size[0] // TILE_ROWS)
    across = MOST_TILES // (1 + has_alpha) // down
    wide = max(TILE_COLUMNS, -(-size[1] // (across * STEP)) * STEP)
    rows, columns = (
        min(most, max(side, LEAST_TILE)) for most, side in zip((TILE_ROWS, wide), size, strict=True)
    )
    return rows + rows % 2, columns + columns % 2


def write(
    file: BinaryIO,
    strips: Iterator[np.ndarray],
    size: tuple[int, int],
    encode: Encode,
    pool: Executor,
    described: Described,
) -> None:
    """Write a picture of so many rows and columns into an empty file.

    Strips are [rows, W, 3 or 4], of a tile's rows each, the last one fewer; `encode` makes an AVIF
    of a tile [rows, W, 3], and of its alpha [rows, W], in threads of `pool`.
    """
    parts: _Parts | None = None
    for strip_HWC in strips:
        tile = tile_sides(size, has_alpha=strip_HWC.shape[2] == 4)
        planes = _planes(strip_HWC, tile)
        coded = [list(pool.map(encode, plane)) for plane in planes]
        if parts is None:
            coding = [_box_in(plane[0], b"av1C") for plane in coded]
            parts = _Parts(size, tile, coding, described)
            parts.begin(file)
        for index, plane in enumerate(coded):
            for data in plane:
                parts.add_tile(file, index, _media(data))
    assert parts is not None
    parts.finish(file)


def _planes(strip_HWC: np.ndarray, tile: tuple[int, int]) -> list[list[np.ndarray]]:
    """Whole tiles of a strip's colours, and those of its alpha if it has some."""
    rows, columns, channels = strip_HWC.shape
    beyond = ((0, tile[0] - rows), (0, -columns % tile[1]), (0, 0))
    padded_HWC = np.pad(strip_HWC, beyond, mode="edge") if np.any(beyond) else strip_HWC
    cut = [padded_HWC[:, left : left + tile[1]] for left in range(0, columns, tile[1])]
    colours = [np.ascontiguousarray(part_HWC[..., :3]) for part_HWC in cut]
    alpha = [np.ascontiguousarray(part_HWC[..., 3]) for part_HWC in cut if channels == 4]
    return [colours, alpha] if alpha else [colours]


class _Parts:
    """The items of one file, their properties and how they belong together."""

    def __init__(
        self,
        size: tuple[int, int],
        tile: tuple[int, int],
        coding: list[bytes],
        described: Described,
    ) -> None:
        self._size, self._tile = size, tile
        self._described = described
        self._grid = tuple(-(-side // tile) for side, tile in zip(size, self._tile, strict=True))
        self._properties: list[bytes] = []
        self._items: list[_Item] = []
        self._references: list[tuple[bytes, int, list[int]]] = []
        self._tiles: list[Iterator[_Item]] = []
        whole, part = self._property(_extent(size)), self._property(_extent(tile))
        for is_alpha, configuration in enumerate(coding):
            pixels = self._property(_pixel_bits(described.bits, 1 if is_alpha else 3))
            coded = [part, pixels, self._property(configuration) | ESSENTIAL]
            shown = [self._property(b) for b in ([_ALPHA_BOX] if is_alpha else self._colour())]
            if is_alpha:
                shown[0] |= ESSENTIAL
            self._add_picture([whole, pixels, *shown], coded, is_alpha=bool(is_alpha))
        self._exif = self._add(b"Exif", [], [(b"cdsc", [1])])
        self._xmp = self._add(b"mime", [], [(b"cdsc", [1])])
        self._start = self._media = 0

    def begin(self, file: BinaryIO) -> None:
        """Write everything before the tiles, with room for their places."""
        file.write(_box(START[:4], START[4:]))
        self._start = file.tell()
        file.write(self._meta())
        self._media = file.tell()
        file.write(struct.pack(">I4sQ", 1, b"mdat", 0))

    def add_tile(self, file: BinaryIO, plane: int, data: bytes) -> None:
        """Write the next tile of the colours, 0, or of alpha, 1."""
        self._write(file, next(self._tiles[plane]), data)

    def finish(self, file: BinaryIO) -> None:
        """Write what is not tiles, and where everything lies."""
        rows, columns = self._grid
        height, width = self._size
        for item in self._items:
            if item.kind == b"grid":  # version 0, sides of 32 bits
                told = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
                self._write(file, item, told)
        self._write(file, self._exif, bytes(4) + self._described.exif)
        self._write(file, self._xmp, self._described.xmp)
        end = file.tell()
        file.seek(self._start)
        file.write(self._meta())
        file.seek(self._media)
        file.write(struct.pack(">I4sQ", 1, b"mdat", end - self._media))

    def _colour(self) -> list[bytes]:
        """A profile, and by numbers what it is and how luma is made of it."""
        numbers = struct.pack(">HHHB", *self._described.code, FULL_RANGE)
        return [_box(b"colr", b"prof" + self._described.icc), _box(b"colr", b"nclx" + numbers)]

    def _add_picture(self, shown: list[int], coded: list[int], *, is_alpha: bool) -> None:
        """A tile, or a grid of several; the first picture of all is what a reader shows."""
        belongs = [(b"auxl", [1])] if is_alpha else []
        count = self._grid[0] * self._grid[1]
        if count == 1:
            properties = list(dict.fromkeys([*coded, *shown[2:]]))
            self._tiles.append(iter([self._add(b"av01", properties, belongs)]))
            return
        first = len(self._items) + 2
        grid = (b"dimg", list(range(first, first + count)))
        self._add(b"grid", shown, [grid, *belongs])
        tiles = [self._add(b"av01", coded, []) for _ in range(count)]
        for tile in tiles:
            tile.is_hidden = True
        self._tiles.append(iter(tiles))

    def _add(
        self, kind: bytes, properties: list[int], references: list[tuple[bytes, list[int]]]
    ) -> _Item:
        item = _Item(kind, properties)
        self._items.append(item)
        self._references += [(name, len(self._items), to) for name, to in references]
        return item

    def _property(self, box: bytes) -> int:
        """The number of a property, from 1 on; one that is there already is used again."""
        if box not in self._properties:
            self._properties.append(box)
        return self._properties.index(box) + 1

    def _write(self, file: BinaryIO, item: _Item, data: bytes) -> None:
        item.offset, item.length = file.tell(), len(data)
        file.write(data)

    def _meta(self) -> bytes:
        """The box that says what there is; as long before the places are known as after."""
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(12), b"\0"),
            _box(b"pitm", bytes(4), struct.pack(">H", 1)),
            self._places(),
            self._kinds(),
            self._belonging(),
            self._with_properties(),
        )

    def _places(self) -> bytes:
        """Offsets of 64 bits and lengths of 32, one extent for each item."""
        each = (
            struct.pack(">HHHQI", number, 0, 1, item.offset, item.length)
            for number, item in enumerate(self._items, 1)
        )
        return _box(b"iloc", bytes(4), b"\x84\0", struct.pack(">H", len(self._items)), *each)

    def _kinds(self) -> bytes:
        each = []
        for number, item in enumerate(self._items, 1):
            head = struct.pack(">BBHHH4s", 2, 0, item.is_hidden, number, 0, item.kind)
            each.append(_box(b"infe", head, b"\0", XMP if item.kind == b"mime" else b""))
        return _box(b"iinf", bytes(4), struct.pack(">H", len(self._items)), *each)

    def _belonging(self) -> bytes:
        each = (
            _box(name, struct.pack(f">HH{len(to)}H", number, len(to), *to))
            for name, number, to in self._references
        )
        return _box(b"iref", bytes(4), *each)

    def _with_properties(self) -> bytes:
        having = [(n, item.properties) for n, item in enumerate(self._items, 1) if item.properties]
        each = (struct.pack(">HB", number, len(own)) + bytes(own) for number, own in having)
        return _box(
            b"iprp",
            _box(b"ipco", *self._properties),
            _box(b"ipma", bytes(4), struct.pack(">I", len(having)), *each),
        )


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _extent(size: tuple[int, int]) -> bytes:
    return _box(b"ispe", bytes(4), struct.pack(">II", size[1], size[0]))


def _pixel_bits(bits: int, channels: int) -> bytes:
    return _box(b"pixi", bytes(4), bytes([channels, *[bits] * channels]))


_ALPHA_BOX = _box(b"auxC", bytes(4), ALPHA)
# Boxes that hold boxes, and how many bytes stand before those.
_HOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}


def _box_in(data: bytes, kind: bytes) -> bytes:
    """A box of a file of one picture, wherever it lies."""
    place = 0
    while place < len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        if name == kind:
            return data[place : place + length]
        place += 8 + _HOLDERS[name] if name in _HOLDERS else length
    raise ValueError(f"no {kind!r} box")


def _media(data: bytes) -> bytes:
    """The coded pixels of a file of one picture."""
    return _box_in(data, b"mdat")[8:]
