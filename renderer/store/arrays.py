"""Blocks and rows in zarr arrays, with the care that zarr does not take.

Rows that cut a file are refused, missing files are errors, and what is written is on disk.
`lead` names one frame: the indices of (T,) C that go before rows and columns.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from ..errors import StoreError
from .layout import LatentArray, PyramidLevel, StoreLayout, halve, ome
from .run_record import DAMAGE, damaged
from .zarr_bucket import Digests, array_of, reading
from .zarr_bucket import write as write_files

if TYPE_CHECKING:
    from .directory import StoreDirectory


# What stores are made with: none of these runs anything that it reads.
CODECS = frozenset({"bytes", "crc32c", "sharding_indexed", "zstd"})


# A block of one colour is a block too: without this zarr writes no file for it.
CONFIG: Any = {"write_empty_chunks": True}


# Checksums that other software checks as well; latents are as good as noise: nothing to compress.
PIXEL_CODECS: Any = (ZstdCodec(level=1), Crc32cCodec())


LATENT_CODECS: Any = (Crc32cCodec(),)


DOCUMENT = "zarr.json"


ZarrArray = Any  # zarr's own class is generic in a type that it does not export


ArraySlices = tuple[slice, ...]


def create_picture(
    folder: StoreDirectory, layout: StoreLayout, name: str, about: Mapping[str, Any]
) -> tuple[ZarrArray, ...]:
    """A folder's empty arrays of pixels, one per level, and the OME-Zarr metadata over them."""
    found = picture_documents(layout, name, about)
    write_documents(folder, found)
    return tuple(
        document_array(folder / str(i), found[f"{i}/{DOCUMENT}"]) for i in range(layout.num_levels)
    )


def picture_documents(
    layout: StoreLayout, name: str, about: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What every zarr.json of a picture says: the group with its OME-Zarr metadata, the levels."""
    kept: dict[str, Any] = {}
    store = MemoryStore(kept)
    group = zarr.create_group(store, zarr_format=3)
    group.update_attributes({"ome": ome(layout, name), "frieze": dict(about)})
    for level in layout.levels:
        zarr.create_array(
            store,
            name=str(level.index),
            shape=layout.extent(level.height, level.width),
            chunks=layout.piece(*level.chunk),
            shards=layout.piece(*level.shard),
            dtype=layout.dtype,
            compressors=PIXEL_CODECS,
            fill_value=0,
            dimension_names=("c", "y", "x") if layout.frames is None else ("t", "c", "y", "x"),
        )
    return _parsed(kept)


def latent_documents(layout: StoreLayout) -> dict[str, dict[str, Any]]:
    """The same of the arrays of latents, which are NaN where nothing was saved."""
    kept: dict[str, Any] = {}
    store = MemoryStore(kept)
    zarr.create_group(store, zarr_format=3)
    for array in layout.latents:
        zarr.create_array(
            store,
            name=array.name,
            shape=array.shape,
            chunks=array.chunk,
            dtype="float32",
            compressors=LATENT_CODECS,
            fill_value=float("nan"),
            dimension_names=("slot", "c", "t", "y", "x"),
        )
    return _parsed(kept)


def write_documents(folder: StoreDirectory, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write zarr.json files, by their names."""
    folder.each(
        lambda name: folder.write(name, json.dumps(found[name], indent=2).encode()), list(found)
    )


def document_array(folder: StoreDirectory, document: dict[str, Any]) -> ZarrArray:
    """The array that a folder's zarr.json describes; it is not looked up."""
    return array_of(folder.zarr, document, CONFIG)


def _parsed(kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: json.loads(data.to_bytes()) for name, data in kept.items()}


def open_array(folder: StoreDirectory) -> ZarrArray:
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
    array: ZarrArray,
    directory: StoreDirectory,
    region: ArraySlices,
    values: np.ndarray,
    *,
    settle: bool = True,
) -> list[str]:
    """Write whole files and return their digests, in the order of their indices.

    With `settle` return when they are on disk, not only on their way.
    """
    keys = list(keys_of(array, region))
    try:
        digests = write_files(array, region, np.ascontiguousarray(values))
        if settle:
            directory.settle(keys)
        return [digests[key] for key in keys]
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{directory} cannot be written: {error.strerror or error}") from error


def read(
    array: ZarrArray, directory: StoreDirectory, region: ArraySlices, digests: Digests | None = None
) -> np.ndarray:
    """Read a region; raises `StoreError` if a file of it is missing or damaged.

    Damaged is also what has none of these `digests`, where there is one.
    """
    try:
        return np.asarray(reading(array, str(directory), digests or Digests())[region])
    except DAMAGE as error:
        raise damaged(directory, error) from error


def rows_of(found: np.ndarray) -> np.ndarray:
    """Pixels [rows, W, C] of what was read of one frame."""
    return np.ascontiguousarray(np.moveaxis(found.reshape(found.shape[-3:]), 0, -1))


def write_rows(
    directory: StoreDirectory,
    array: ZarrArray,
    place: tuple[int, int],
    pixels_HWC: np.ndarray,
    lead: ArraySlices = (slice(None),),
    *,
    settle: bool = True,
) -> list[str]:
    """Write pixels [rows, columns, C] of whole shards, the first one at (row, column).

    Returns the shards' digests.
    """
    (top, left), (height, width, _) = place, pixels_HWC.shape
    pixels = np.moveaxis(pixels_HWC, -1, 0)
    region = (*lead, slice(top, top + height), slice(left, left + width))
    return write(array, directory, region, pixels[(None,) * (len(lead) - 1)], settle=settle)


def write_block(
    directory: StoreDirectory,
    layout: StoreLayout,
    arrays: Sequence[ZarrArray],
    place: tuple[int, int],
    pixels_HWC: np.ndarray,
    frame: int | None = None,
) -> str:
    """Write the block at (block row, block column) into every level where it owns a shard.

    Returns the shards' digests, put together.
    """
    digests: list[str] = []
    for level, array in zip(layout.levels, arrays, strict=True):
        if not level.by_block:
            break
        if level.index:
            pixels_HWC = halve(pixels_HWC)
        corner = (place[0] * level.shard[0], place[1] * level.shard[1])
        where = directory / str(level.index)
        digests += write_rows(where, array, corner, pixels_HWC, layout.lead(frame))
    return "".join(digests)


def build_level(
    directory: StoreDirectory,
    layout: StoreLayout,
    level: PyramidLevel,
    array: ZarrArray,
    below: Callable[[int, int, int, int | None], np.ndarray],
) -> str:
    """Make a level that no block owns from the one below it, one row of shards at a time.

    `below` gives that one's rows, from `top` to `bottom`, of a level's frame. Returns the shards'
    digests, put together.
    """
    digests: list[str] = []
    height = layout.levels[level.index - 1].height
    for frame, top in product(range(layout.frames or 1), range(0, level.height, level.shard[0])):
        at = None if layout.frames is None else frame
        wide_HWC = below(2 * top, min(2 * (top + level.shard[0]), height), level.index - 1, at)
        where = directory / str(level.index)
        digests += write_rows(where, array, (top, 0), halve(wide_HWC), layout.lead(at))
    return "".join(digests)


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


def keys_of(array: ZarrArray, region: ArraySlices) -> Iterator[str]:
    """The files that hold a region: one per shard, or per chunk where there are no shards."""
    spans = []
    for length, side, part in zip(array.shape, array.shards or array.chunks, region, strict=True):
        start, stop, _ = part.indices(length)
        spans.append(range(start // side, -(-stop // side)))
    for index in product(*spans):
        yield array.metadata.encode_chunk_key(index)


def save(
    array: ZarrArray,
    described: LatentArray,
    directory: StoreDirectory,
    slot: int,
    rows: slice,
    latents_CTHW: np.ndarray,
    frames: slice | None = None,
) -> dict[int, str]:
    """Write one band's rows, of some `frames` or of all, into a slot.

    Returns {number of a chunk in the slot: digest of its file}. Raises `StoreError` if they cut a
    chunk or do not fit.
    """
    _, channels, num_frames, height, width = described.shape
    frames = frames or slice(0, num_frames)
    expected = (channels, frames.stop - frames.start, rows.stop - rows.start, width)
    if latents_CTHW.shape != expected or latents_CTHW.dtype != np.float32:
        raise StoreError(
            f"latents of {latents_CTHW.shape} {latents_CTHW.dtype}; rows {rows.start} to "
            f"{rows.stop} take {expected} float32"
        )
    check_aligned(rows, described.chunk_rows, height, "latent chunks")
    check_aligned(frames, described.chunk[2], num_frames, "latent chunks", "frames")
    region = (slice(slot, slot + 1), slice(None), frames, rows, slice(None))
    # A wait for the disk at every step would cost more than the power cut it guards against.
    digests = write(array, directory, region, latents_CTHW[None], settle=False)
    groups, strips = (
        range(part.start // side, math.ceil(part.stop / side))
        for part, side in ((frames, described.chunk[2]), (rows, described.chunk_rows))
    )
    num_strips = math.ceil(height / described.chunk_rows)
    places = (group * num_strips + strip for group, strip in product(groups, strips))
    return dict(zip(places, digests, strict=True))
