"""Where pixels lie on disk: blocks, shards, chunks and pyramid, as integers.

A block is the unit of writing. At level l of the pyramid one block owns one whole shard of
(block / 2^l) pixels, for as long as it halves evenly and its shard is worth a file; the levels
above, a sixty-fourth of the picture and less, are built when all blocks are there. Two processes
that write parts of one shard lose data without an error, so shards never have two writers.
A clip is its frames one after another: a block belongs to one frame, and the pyramid halves rows
and columns only.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import StoreError
from ..spec.units import BYTES_OF

BlockId = str  # "block row/block column"; of a clip "frame/block row/block column"


SMALLEST_SHARD = 64


SMALLEST_CHUNK = 16


SMALLEST_LEVEL = 256


PIXELS = ("uint8", "uint16")  # as which pixels are stored


# Shard indices, metadata and the journal; zstd on noise grows by less than this as well.
SLACK = 1.02


TIME = {"name": "t", "type": "time", "unit": "second"}


@dataclass(frozen=True)
class LatentArray:
    """One stage's saved latents: `shape` is (slots, C, T, H, W) in latent units.

    Bands start and stop at multiples of `chunk_rows`, and what is written frame group by frame
    group at multiples of `chunk_frames` (None: all at once), so that no chunk has two writers.
    """

    name: str
    shape: tuple[int, int, int, int, int]
    chunk_rows: int
    chunk_frames: int | None = None

    @property
    def chunk(self) -> tuple[int, int, int, int, int]:
        """Shape of one chunk, which is one file."""
        _, channels, frames, _, width = self.shape
        return (1, channels, self.chunk_frames or frames, self.chunk_rows, width)


@dataclass(frozen=True)
class PyramidLevel:
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
    A clip has `frames` of them, `fps` a second; a picture has None of both.
    """

    height: int
    width: int
    block: tuple[int, int]
    dtype: str = "uint8"
    channels: int = 3
    chunk: int = 512
    latents: tuple[LatentArray, ...] = ()
    num_levels: int = 0
    frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if min(self.height, self.width, *self.block) < 1:
            raise StoreError(
                f"{self.width}x{self.height} in blocks of {self.block}: use sizes >= 1"
            )
        if self.dtype not in PIXELS:
            raise StoreError(f"no pixels of {self.dtype!r}; uint8 and uint16 work")
        if self.channels != 3:
            raise StoreError(f"no pictures of {self.channels} channels; 3 works")
        self._check_frames()
        if not self.num_levels:
            larger = max(self.height, self.width)
            halvings = max(0, math.ceil(math.log2(larger / SMALLEST_LEVEL)))
            object.__setattr__(self, "num_levels", halvings + 1)
        for array in self.latents:
            if min(array.shape[0], *array.chunk) < 1:
                raise StoreError(f"latents {array}: 1 slot and 1 row per chunk are the least")
        _ = self.levels

    @property
    def levels(self) -> tuple[PyramidLevel, ...]:
        """All resolutions, the full one first."""
        return tuple(self._level(index) for index in range(self.num_levels))

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole picture, or of all frames."""
        return (self.frames or 1) * math.ceil(self.height / self.block[0]) * self.num_columns

    @property
    def num_columns(self) -> int:
        """Blocks side by side in one block row."""
        return math.ceil(self.width / self.block[1])

    def blocks(self, top: int, bottom: int) -> Iterator[tuple[int, int]]:
        """(block row, block column) of every block that holds pixel rows [top, bottom)."""
        for row in range(top // self.block[0], math.ceil(bottom / self.block[0])):
            for column in range(self.num_columns):
                yield row, column

    def ids(self, top: int, bottom: int, frame: int | None = None) -> list[BlockId]:
        """Ids of every block that holds pixel rows [top, bottom) of a frame (None: of all)."""
        places = [f"{row}/{column}" for row, column in self.blocks(top, bottom)]
        if self.frames is None:
            return places
        frames = range(self.frames) if frame is None else (frame,)
        return [f"{number}/{place}" for number in frames for place in places]

    def has(self, block: BlockId) -> bool:
        """Whether there is a block of that id."""
        *frame, row, column = map(int, block.split("/"))
        counts = (math.ceil(self.height / self.block[0]), self.num_columns)
        sides = counts if self.frames is None else (self.frames, *counts)
        place = (*frame, row, column)
        return len(place) == len(sides) and all(
            at < count for at, count in zip(place, sides, strict=True)
        )

    def block_bytes(self, block: BlockId) -> int:
        """Bytes of one block's pixels at full size, uncompressed; those at the edges are cut."""
        row, column = map(int, block.split("/")[-2:])
        rows = min(self.block[0], self.height - row * self.block[0])
        columns = min(self.block[1], self.width - column * self.block[1])
        return rows * columns * self.channels * BYTES_OF[self.dtype]

    def lead(self, frame: int | None) -> tuple[slice, ...]:
        """What goes before rows and columns to name one frame of an array: (T,) C.

        Raises `StoreError` unless the frame is the clip's; a picture's only frame is None or 0.
        """
        if self.frames is None:
            if frame:
                raise StoreError(f"no frame {frame} of a picture; leave it out")
            return (slice(None),)
        if frame is None or not 0 <= frame < self.frames:
            raise StoreError(f"no frame {frame} of a clip; 0 to {self.frames - 1} work")
        return (slice(frame, frame + 1), slice(None))

    def extent(self, *sides: int) -> tuple[int, ...]:
        """(T,) C and the sides: the shape of a level's array."""
        return (*(() if self.frames is None else (self.frames,)), self.channels, *sides)

    def piece(self, *sides: int) -> tuple[int, ...]:
        """The same for a shard or chunk, which holds one frame."""
        return (*(() if self.frames is None else (1,)), self.channels, *sides)

    def as_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes the layout again."""
        values = asdict(self)
        values["latents"] = [_without_none(array) for array in values["latents"]]
        return _without_none(values)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreLayout:
        """The layout that `as_json` described; raises KeyError, TypeError or `StoreError`."""
        arrays = tuple(
            LatentArray(**{**a, "shape": tuple(map(int, a["shape"]))}) for a in values["latents"]
        )
        rows, columns = values["block"]
        return cls(**{**values, "block": (int(rows), int(columns)), "latents": arrays})

    def _check_frames(self) -> None:
        if self.frames is None and self.fps is None:
            return
        if self.frames is None or self.frames < 1 or self.fps is None or not self.fps > 0:
            raise StoreError(
                f"{self.frames} frames at {self.fps} a second; a clip has 1 or more of both, "
                "a picture None"
            )

    def _level(self, index: int) -> PyramidLevel:
        sides = (self.height, self.width)
        height, width = (math.ceil(side / 2**index) for side in sides)
        pairs = [
            self._shard(side, block, index) for side, block in zip(sides, self.block, strict=True)
        ]
        by_block = all(pair is not None for pair in pairs)
        if not by_block:
            pairs = [(side, side) for side in (min(self.chunk, height), min(self.chunk, width))]
        (shard_rows, rows), (shard_columns, columns) = (pair for pair in pairs if pair)
        return PyramidLevel(
            index, height, width, (shard_rows, shard_columns), (rows, columns), by_block
        )

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
    total *= BYTES_OF[layout.dtype] * (layout.frames or 1)
    for array in layout.latents:
        sides = zip(array.shape, array.chunk, strict=True)
        total += math.prod(math.ceil(side / chunk) * chunk for side, chunk in sides) * 4
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
    """OME-Zarr 0.5 attributes of an RGB picture or clip (ngff.openmicroscopy.org/0.5)."""
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
                    *([] if layout.fps is None else [TIME]),
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space"},
                    {"name": "x", "type": "space"},
                ],
                "datasets": [_dataset(index, layout.fps) for index in range(layout.num_levels)],
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


def _dataset(index: int, fps: float | None) -> dict[str, Any]:
    """A level's place: its pixels are 2^index wide, and the first one's centre moves inwards.

    A clip's frames are 1 / `fps` seconds apart, the first at 0.
    """
    step = float(2**index)
    scale = [1.0, step, step]
    shift = [0.0, (step - 1) / 2, (step - 1) / 2]
    if fps is not None:
        scale, shift = [1 / fps, *scale], [0.0, *shift]
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if index:
        transforms.append({"type": "translation", "translation": shift})
    return {"path": str(index), "coordinateTransformations": transforms}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


RowSink = Callable[[int, np.ndarray], object]
