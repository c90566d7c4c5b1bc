"""TIFF for print: a compressed pyramid that follows a store, or a plain one written live.

Compressed: one pass from the top down, tiles of 512, deflate with predictor, levels in SubIFDs.
Live: the file is made at full size first, then every process writes its own tiles at their
offsets, in any order, without asking anyone.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from pydantic import Field, StrictBool

from ..codecs.output import ExportOptions, Output
from ..errors import ExportError
from ..files.atomic import check_space, whole_file
from ..files.location import Location
from ..inputs.metadata import NOTHING, Metadata
from ..inputs.transparency import with_alpha
from ..spec.units import GIB
from ..store.layout import StoreLayout
from ..store.provenance import (
    DEFAULT_DPI,
    alpha_of,
    check_picture,
    tiff_tags,
)
from ..store.store import Store

suffixes = (".tif", ".tiff")
color_spaces = ("RGB", "CMYK")

TILE = 512
# Raw tiles that tifffile gathers before it compresses them; its own default is 256 MiB.
BUFFER_BYTES = 2**24
# A reader with 32-bit offsets sees this much; a little is left for tags.
CLASSIC_BYTES = 2**32 - 2**24


class Options(ExportOptions):
    """Of TIFF."""

    level: int = Field(default=1, ge=1, le=9, description="deflate's: 1 fast, 9 small")
    classic: StrictBool = Field(
        default=False, description="a TIFF that old print software reads, below 4 GiB"
    )
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="compressing threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as a deflated, tiled BigTIFF with its pyramid; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out, layout = output.store, output.path, output.layout
    check(out, layout)
    channels = output.colors.channels + output.has_alpha
    itemsize = np.dtype(layout.dtype).itemsize
    raw = layout.height * layout.width * channels * itemsize * 4 // 3
    if options.classic and raw > CLASSIC_BYTES:
        raise ExportError(f"{out}: {raw / GIB:.1f} GiB do not fit a classic TIFF; use BigTIFF")
    about = tiff_tags(output.dpi, store.provenance, output.carried, output.colors) | {
        "compression": "zlib",
        "compressionargs": {"level": options.level},
        "predictor": True,
        "maxworkers": options.workers or os.cpu_count() or 1,
        "buffersize": BUFFER_BYTES,
    }
    with (
        output.file() as part,
        tifffile.TiffWriter(part, bigtiff=not options.classic, byteorder="<") as writer,
    ):
        _write_level(writer, output, 0, store.in_order(TILE, wait=output.follow), about)
        store.wait_finished(wait=output.follow)
        for index in range(1, layout.num_levels):
            _write_level(writer, output, index, _strips(store, index), about)
    return out


def _write_level(
    writer: tifffile.TiffWriter,
    output: Output,
    index: int,
    strips: Iterator[tuple[int, np.ndarray]],
    about: Mapping[str, Any],
) -> None:
    """One page: the picture itself, with room for its SubIFDs, or one of these."""
    layout, colors = output.layout, output.colors
    level = layout.levels[index]
    tile = tuple(min(TILE, math.ceil(side / 16) * 16) for side in (level.height, level.width))
    if index:
        kept = ("photometric", "metadata", "compression", "compressionargs", "predictor")
        options = {name: about[name] for name in (*kept, "maxworkers", "buffersize")} | {
            "subfiletype": 1
        }
    else:
        options = {**about, "subifds": layout.num_levels - 1}
    alpha = alpha_of(output.store)
    if alpha is not None:
        options["extrasamples"] = ["unassalpha"]
    straight = with_alpha(strips, alpha, (level.height, level.width))
    writer.write(
        _tiles(colors.strips(straight, about["maxworkers"]), tile[1]),
        shape=(level.height, level.width, colors.channels + (alpha is not None)),
        dtype=layout.dtype,
        tile=tile,
        **options,
    )


def _strips(store: Store, index: int) -> Iterator[tuple[int, np.ndarray]]:
    height = store.layout.levels[index].height
    for top in range(0, height, TILE):
        yield top, store.read_rows(top, min(top + TILE, height), index)


def _tiles(strips: Iterator[tuple[int, np.ndarray]], width: int) -> Iterator[np.ndarray]:
    """Tiles in the order that TIFF wants; those at the edges are smaller, and padded later."""
    for _, rows_HWC in strips:
        for left in range(0, rows_HWC.shape[1], width):
            yield rows_HWC[:, left : left + width]


@dataclass(frozen=True)
class _Live:
    """Where the tiles of an uncompressed TIFF lie: one after another from `offset` on."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    tile: int
    offset: int


def create_tiled(
    path: str | os.PathLike[str],
    height: int,
    width: int,
    *,
    tile: int = TILE,
    bits: int = 8,
    dpi: float = DEFAULT_DPI,
    description: Mapping[str, Any] | None = None,
    carried: Metadata = NOTHING,
    overwrite: bool = False,
) -> None:
    """Make an uncompressed tiled BigTIFF of full size, black until its tiles are written.

    `tile` is a multiple of 16 that divides the rows every writer will write at once. Raises
    `ExportError`, also when the disk has no room.
    """
    if tile < 16 or tile % 16:
        raise ExportError(f"TIFF tiles of {tile} pixels do not work; use a multiple of 16")
    target = Path(path)
    num_tiles = math.ceil(height / tile) * math.ceil(width / tile)
    with whole_file(target, overwrite=overwrite, error=ExportError) as part:
        check_space(target, num_tiles * tile * tile * 3 * bits // 8, ExportError)
        with tifffile.TiffWriter(part, bigtiff=True, byteorder="<") as writer:
            writer.write(
                None,
                shape=(height, width, 3),
                dtype=f"uint{bits}",
                tile=(tile, tile),
                **tiff_tags(dpi, description, carried),
            )


def write_tiles(path: str | os.PathLike[str], row: int, pixels_HWC: np.ndarray) -> None:
    """Write rows of whole tiles into a file of `create_tiled`; they are on disk on return.

    Any process may write any rows at any time, as long as no two write the same. Raises
    `ExportError` unless the rows are the picture's full width and start and end where tiles do.
    """
    name = os.fspath(path)
    live = _layout(name, os.stat(name).st_ino)
    _check_rows(live, name, row, pixels_HWC)
    descriptor = os.open(name, os.O_WRONLY)
    try:
        for top in range(0, pixels_HWC.shape[0], live.tile):
            tiles = _cut(live, pixels_HWC[top : top + live.tile])
            _write_at(descriptor, tiles, live.offset + (row + top) // live.tile * len(tiles))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tile_side(block: int) -> int:
    """The largest side of a tile, at most 512, that divides a block's."""
    sides = [side for side in range(16, min(TILE, block) + 1, 16) if block % side == 0]
    if not sides:
        raise ExportError(f"blocks of {block} pixels hold no whole TIFF tiles; use multiples of 16")
    return sides[-1]


@lru_cache(maxsize=8)
def _layout(path: str, inode: int) -> _Live:
    """Read the tiles' place once per file; `inode` tells a replaced file from the old one."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            height, width, channels = page.shape
            tile, offsets, counts = page.tilewidth, page.dataoffsets, page.databytecounts
            dtype = np.dtype(page.dtype).newbyteorder("<")
            contiguous = offsets == tuple(offsets[0] + i * counts[0] for i in range(len(offsets)))
    except (tifffile.TiffFileError, ValueError, TypeError) as error:
        raise ExportError(
            f"{path} is not a TIFF that was made for live writing: {error}"
        ) from error
    if page.compression != 1 or not contiguous or tile != page.tilelength:
        raise ExportError(f"{path} is not a TIFF that was made for live writing; make it anew")
    return _Live(height, width, channels, dtype, tile, offsets[0])


def _check_rows(live: _Live, path: str, row: int, pixels_HWC: np.ndarray) -> None:
    bottom = row + pixels_HWC.shape[0]
    aligned = row % live.tile == 0 and (bottom % live.tile == 0 or bottom == live.height)
    if not (aligned and 0 <= row < bottom <= live.height):
        raise ExportError(
            f"{path}: rows {row} to {bottom} cut through tiles of {live.tile}; use whole tiles"
        )
    if pixels_HWC.shape[1:] != (live.width, live.channels) or pixels_HWC.dtype != live.dtype:
        raise ExportError(
            f"{path} takes rows of {live.width} pixels, {live.channels} channels, {live.dtype}; "
            f"not {pixels_HWC.shape} {pixels_HWC.dtype}"
        )


def _cut(live: _Live, rows_HWC: np.ndarray) -> bytes:
    """One row of tiles as the file holds it, zeros beyond the picture's edge."""
    height, width, channels = rows_HWC.shape
    num_tiles = math.ceil(width / live.tile)
    padded = np.zeros((live.tile, num_tiles * live.tile, channels), live.dtype)
    padded[:height, :width] = rows_HWC
    tiles = padded.reshape(live.tile, num_tiles, live.tile, channels).swapaxes(0, 1)
    return tiles.tobytes()


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
