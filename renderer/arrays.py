"""Blocks and rows in zarr arrays, with the care that zarr does not take.

Rows that cut a file are refused, missing files are errors, and what is written is on disk.
`lead` names one frame: the indices of (T,) C that go before rows and columns.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from .about import DAMAGE, damaged
from .errors import StoreError
from .objects import reading, writing
from .pixels import Level, StoreLayout, halve, ome

if TYPE_CHECKING:
    from .homes import Home

# What stores are made with: none of these runs anything that it reads.
CODECS = frozenset({"bytes", "crc32c", "sharding_indexed", "zstd"})

# A block of one colour is a block too: without this zarr writes no file for it.
CONFIG: Any = {"write_empty_chunks": True}
# Checksums that other software checks as well; latents are as good as noise: nothing to compress.
PIXEL_CODECS: Any = (ZstdCodec(level=1), Crc32cCodec())
LATENT_CODECS: Any = (Crc32cCodec(),)

ZarrArray = Any  # zarr's own class is generic in a type that it does not export
Region = tuple[slice, ...]


def create_picture(
    folder: Home, layout: StoreLayout, name: str, about: Mapping[str, Any]
) -> tuple[ZarrArray, ...]:
    """A folder's empty arrays of pixels, one per level, and the OME-Zarr metadata over them."""
    group = zarr.create_group(folder.zarr, zarr_format=3)
    group.update_attributes({"ome": ome(layout, name), "frieze": dict(about)})
    return tuple(
        zarr.create_array(
            (folder / str(level.index)).zarr,
            shape=layout.extent(level.height, level.width),
            chunks=layout.piece(*level.chunk),
            shards=layout.piece(*level.shard),
            dtype=layout.dtype,
            compressors=PIXEL_CODECS,
            fill_value=0,
            dimension_names=("c", "y", "x") if layout.frames is None else ("t", "c", "y", "x"),
            config=CONFIG,
        )
        for level in layout.levels
    )


def create_latents(folder: Home, layout: StoreLayout) -> None:
    """A folder's empty arrays of latents: NaN where nothing was saved."""
    zarr.create_group(folder.zarr, zarr_format=3)
    for array in layout.latents:
        zarr.create_array(
            (folder / array.name).zarr,
            shape=array.shape,
            chunks=array.chunk,
            dtype="float32",
            compressors=LATENT_CODECS,
            fill_value=float("nan"),
            dimension_names=("slot", "c", "t", "y", "x"),
            config=CONFIG,
        )


def open_array(folder: Home) -> ZarrArray:
    """An array to read or write; zarr forgets `config` between openings, so it is set anew."""
    return zarr.open_array(folder.zarr, mode="r+", zarr_format=3).with_config(CONFIG)


def check_aligned(rows: slice, unit: int, height: int, what: str, kind: str = "rows") -> None:
    """Rows must start and end at multiples of `unit`, or at the edge: one writer per file.

    Frames as well, with `kind` "frames".
    """
    whole = rows.start % unit == 0 and (rows.stop % unit == 0 or rows.stop == height)
    if not (whole and 0 <= rows.start < rows.stop <= height):
        raise StoreError(
            f"{kind} {rows.start} to {rows.stop} cut through {what} of {unit} {kind} "
            f"({'height' if kind == 'rows' else 'of'} {height}); use multiples of {unit}"
        )


def write(
    array: ZarrArray, home: Home, region: Region, values: np.ndarray, *, settle: bool = True
) -> None:
    """Write whole files; with `settle` return when they are on disk, not only on their way."""
    try:
        writing(array)[region] = np.ascontiguousarray(values)
        if settle:
            home.settle(_keys(array, region))
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{home} cannot be written: {error.strerror or error}") from error


def read(array: ZarrArray, home: Home, region: Region) -> np.ndarray:
    """Read a region; raises `StoreError` if a file of it is missing or damaged.

    For a missing file zarr would return the fill value without a word.
    """
    try:
        return np.asarray(reading(array, str(home))[region])
    except DAMAGE as error:
        raise damaged(home, error) from error


def read_rows(
    home: Home, array: ZarrArray, top: int, bottom: int, lead: Region = (slice(None),)
) -> np.ndarray:
    """Pixels [rows, W, C] of a level; raises `StoreError` where they are missing or damaged."""
    found = read(array, home, (*lead, slice(top, bottom), slice(None)))
    pixels_CHW = found.reshape(found.shape[-3:])
    return np.ascontiguousarray(np.moveaxis(pixels_CHW, 0, -1))


def write_rows(
    home: Home,
    array: ZarrArray,
    place: tuple[int, int],
    pixels_HWC: np.ndarray,
    lead: Region = (slice(None),),
    *,
    settle: bool = True,
) -> None:
    """Write pixels [rows, columns, C] of whole shards, the first one at (row, column)."""
    (top, left), (height, width, _) = place, pixels_HWC.shape
    pixels = np.moveaxis(pixels_HWC, -1, 0)
    region = (*lead, slice(top, top + height), slice(left, left + width))
    write(array, home, region, pixels[(None,) * (len(lead) - 1)], settle=settle)


def write_block(
    home: Home,
    layout: StoreLayout,
    arrays: Sequence[ZarrArray],
    place: tuple[int, int],
    pixels_HWC: np.ndarray,
    frame: int | None = None,
) -> None:
    """Write the block at (block row, block column) into every level where it owns a shard."""
    for level, array in zip(layout.levels, arrays, strict=True):
        if not level.by_block:
            return
        if level.index:
            pixels_HWC = halve(pixels_HWC)
        corner = (place[0] * level.shard[0], place[1] * level.shard[1])
        write_rows(home / str(level.index), array, corner, pixels_HWC, layout.lead(frame))


def build_level(home: Home, layout: StoreLayout, level: Level, arrays: Sequence[ZarrArray]) -> None:
    """Make a level that no block owns from the one below it, one row of shards at a time."""
    below = layout.levels[level.index - 1]
    source, target = (home / str(index) for index in (below.index, level.index))
    for frame, top in product(range(layout.frames or 1), range(0, level.height, level.shard[0])):
        bottom = min(2 * (top + level.shard[0]), below.height)
        lead = layout.lead(frame)
        wide_HWC = read_rows(source, arrays[below.index], 2 * top, bottom, lead)
        write_rows(target, arrays[level.index], (top, 0), halve(wide_HWC), lead)


def check_arrays(
    layout: StoreLayout, pixels: Sequence[ZarrArray], saved: Sequence[ZarrArray]
) -> None:
    """Raise ValueError unless a store's arrays are those of its layout."""
    for array in (*pixels, *saved):
        if strange := set(_codecs(array.metadata.to_dict()["codecs"])) - CODECS:
            raise ValueError(f"an array is coded with {', '.join(sorted(strange))}")
    for level, array in zip(layout.levels, pixels, strict=True):
        expected = layout.extent(level.height, level.width)
        if array.shape != expected or array.dtype != layout.dtype:
            raise ValueError(f"array {level.index} is {array.shape} {array.dtype}")
        if (array.shards or array.chunks) != layout.piece(*level.shard):
            raise ValueError(f"array {level.index} has shards of {array.shards}")
    for described, array in zip(layout.latents, saved, strict=True):
        if array.shape != described.shape or array.dtype != np.float32:
            raise ValueError(f"latents {described.name} are {array.shape} {array.dtype}")
        if array.chunks != described.chunk:
            raise ValueError(f"latents {described.name} have chunks of {array.chunks}")


def _codecs(described: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Names of codecs, of those inside a shard as well."""
    for codec in described:
        yield codec["name"]
        inside = codec.get("configuration", {})
        for part in ("codecs", "index_codecs"):
            yield from _codecs(inside.get(part, ()))


def _keys(array: ZarrArray, region: Region) -> Iterator[str]:
    """The files that hold a region: one per shard, or per chunk where there are no shards."""
    spans = []
    for length, side, part in zip(array.shape, array.shards or array.chunks, region, strict=True):
        start, stop, _ = part.indices(length)
        spans.append(range(start // side, -(-stop // side)))
    for index in product(*spans):
        yield array.metadata.encode_chunk_key(index)
