"""Where a picture's pixels lie on disk: blocks, shards, chunks and pyramid, as integers.

A block is the unit of writing. At level l of the pyramid one block owns one whole shard of
(block / 2^l) pixels, for as long as it halves evenly and its shard is worth a file; the levels
above, a sixty-fourth of the picture and less, are built when all blocks are there. Two processes
that write parts of one shard lose data without an error, so shards never have two writers.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import StoreError

BlockId = str  # "block row/block column"

SMALLEST_SHARD = 64
SMALLEST_CHUNK = 16
SMALLEST_LEVEL = 256
BYTES_OF = {"uint8": 1, "uint16": 2}
# Shard indices, metadata and the journal; zstd on noise grows by less than this as well.
SLACK = 1.02


@dataclass(frozen=True)
class LatentArray:
    """One stage's saved latents: `shape` is (slots, C, T, H, W) in latent units.

    Bands start and stop at multiples of `chunk_rows`, so that no chunk has two writers.
    """

    name: str
    shape: tuple[int, int, int, int, int]
    chunk_rows: int


@dataclass(frozen=True)
class Level:
    """One resolution of the pyramid; `by_block` levels are written together with their blocks."""

    index: int
    height: int
    width: int
    shard: tuple[int, int]
    chunk: tuple[int, int]
    by_block: bool


@dataclass(frozen=True)
class StoreLayout:
    """Sizes of everything in a store, in pixels; raises `StoreError` where they do not fit.

    `block` is (rows, columns) of the unit of writing, `chunk` the longest side of what readers
    decode at once. With `num_levels` 0 the pyramid ends at the first level within 256 pixels.
    """

    height: int
    width: int
    block: tuple[int, int]
    dtype: str = "uint8"
    channels: int = 3
    chunk: int = 512
    latents: tuple[LatentArray, ...] = ()
    num_levels: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, *self.block) < 1:
            raise StoreError(
                f"{self.width}x{self.height} in blocks of {self.block}: use sizes >= 1"
            )
        if self.dtype not in BYTES_OF:
            raise StoreError(f"no pixels of {self.dtype!r}; uint8 and uint16 work")
        if self.channels != 3:
            raise StoreError(f"no pictures of {self.channels} channels; 3 works")
        if not self.num_levels:
            larger = max(self.height, self.width)
            halvings = max(0, math.ceil(math.log2(larger / SMALLEST_LEVEL)))
            object.__setattr__(self, "num_levels", halvings + 1)
        for array in self.latents:
            if array.chunk_rows < 1 or array.shape[0] < 1:
                raise StoreError(f"latents {array}: 1 slot and 1 row per chunk are the least")
        _ = self.levels

    @property
    def levels(self) -> tuple[Level, ...]:
        """All resolutions, the full one first."""
        return tuple(self._level(index) for index in range(self.num_levels))

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole picture."""
        return math.ceil(self.height / self.block[0]) * self.num_columns

    @property
    def num_columns(self) -> int:
        """Blocks side by side in one block row."""
        return math.ceil(self.width / self.block[1])

    def blocks(self, top: int, bottom: int) -> Iterator[tuple[int, int]]:
        """(block row, block column) of every block that holds pixel rows [top, bottom)."""
        for row in range(top // self.block[0], math.ceil(bottom / self.block[0])):
            for column in range(self.num_columns):
                yield row, column

    def ids(self, top: int, bottom: int) -> list[BlockId]:
        """Ids of every block that holds pixel rows [top, bottom)."""
        return [f"{row}/{column}" for row, column in self.blocks(top, bottom)]

    def as_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes the layout again."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreLayout:
        """The layout that `as_json` described; raises KeyError, TypeError or `StoreError`."""
        arrays = tuple(
            LatentArray(a["name"], (*map(int, a["shape"]),), int(a["chunk_rows"]))  # type: ignore[arg-type]
            for a in values["latents"]
        )
        rows, columns = values["block"]
        return cls(**{**values, "block": (int(rows), int(columns)), "latents": arrays})

    def _level(self, index: int) -> Level:
        sides = (self.height, self.width)
        height, width = (math.ceil(side / 2**index) for side in sides)
        pairs = [
            self._shard(side, block, index) for side, block in zip(sides, self.block, strict=True)
        ]
        by_block = all(pair is not None for pair in pairs)
        if not by_block:
            pairs = [(side, side) for side in (min(self.chunk, height), min(self.chunk, width))]
        (shard_rows, rows), (shard_columns, columns) = (pair for pair in pairs if pair)
        return Level(index, height, width, (shard_rows, shard_columns), (rows, columns), by_block)

    def _shard(self, side: int, block: int, index: int) -> tuple[int, int] | None:
        """(shard, chunk) of one side at a level; None where a block owns no whole shard."""
        if block >= side:
            # One block spans this side: nothing to align with, so the chunk need not divide it.
            length = math.ceil(side / 2**index)
            chunk = min(self.chunk, length)
            return math.ceil(length / chunk) * chunk, chunk
        if block % 2**index or (index and block >> index < SMALLEST_SHARD):
            return None
        length = block >> index
        chunk = max(n for n in range(1, min(self.chunk, length) + 1) if length % n == 0)
        if chunk < min(SMALLEST_CHUNK, length):
            raise StoreError(f"block side {block} has no chunk of 16 to {self.chunk}; use 512")
        return length, chunk


def required_bytes(layout: StoreLayout) -> int:
    """Bytes on disk that a store needs at most: nothing compresses, and every slot is used."""
    total = 0
    for level in layout.levels:
        shards = math.ceil(level.height / level.shard[0]) * math.ceil(level.width / level.shard[1])
        total += shards * level.shard[0] * level.shard[1] * layout.channels
    total *= BYTES_OF[layout.dtype]
    for array in layout.latents:
        slots, channels, frames, height, width = array.shape
        rows = math.ceil(height / array.chunk_rows) * array.chunk_rows
        total += slots * channels * frames * rows * width * 4
    return int(total * SLACK) + 2**20


def halve(pixels_HWC: np.ndarray) -> np.ndarray:
    """The exact 2x2 mean, rounded half to even so that no level is brighter than the last.

    A last odd row or column is averaged with itself.
    """
    rows, columns = pixels_HWC.shape[0] % 2, pixels_HWC.shape[1] % 2
    if rows or columns:
        pixels_HWC = np.pad(pixels_HWC, ((0, rows), (0, columns), (0, 0)), mode="edge")
    wide = np.uint16 if pixels_HWC.dtype == np.uint8 else np.uint32
    tall = pixels_HWC[0::2].astype(wide) + pixels_HWC[1::2]
    sums = tall[:, 0::2] + tall[:, 1::2]
    odd = (sums >> 2) & 1
    return np.asarray((sums + odd + 1) >> 2, dtype=pixels_HWC.dtype)


def ome(layout: StoreLayout, name: str) -> dict[str, Any]:
    """OME-Zarr 0.5 attributes of an RGB picture (ngff.openmicroscopy.org/0.5)."""
    top = 2 ** (8 * BYTES_OF[layout.dtype]) - 1
    window = {"min": 0, "max": top, "start": 0, "end": top}
    colours = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": "2x2 mean",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space"},
                    {"name": "x", "type": "space"},
                ],
                "datasets": [_dataset(index) for index in range(layout.num_levels)],
            }
        ],
        "omero": {
            "channels": [
                {"label": label, "color": colour, "active": True, "window": window}
                for label, colour in colours.items()
            ],
            "rdefs": {"model": "color"},
        },
    }


def _dataset(index: int) -> dict[str, Any]:
    """A level's place: its pixels are 2^index wide, and the first one's centre moves inwards."""
    step = float(2**index)
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, step, step]}]
    if index:
        shift = (step - 1) / 2
        transforms.append({"type": "translation", "translation": [0.0, shift, shift]})
    return {"path": str(index), "coordinateTransformations": transforms}
