"""A pattern of one grey level, by a word that `detect` knows again: a mark, and no protection.

Spread spectrum in pixels (Bender et al. 1996, Techniques for data hiding; Cox et al. 1997): every
cell of 4 x 4 pixels is a little lighter or darker, as the word says, and the pattern repeats every
128 pixels, so that a part of the picture is enough. The word is kept in the store and published
with the file: it tells whose picture it is, and hides nothing. JPEG and cuts leave it, other sizes
do not.
Shape suffixes: C channels, H rows, W columns, P rows and Q columns of one period.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

CELL, CELLS = 4, 32
PERIOD = CELL * CELLS
# A score of more is no chance: of 3 000 parts of 256 x 256 pixels, half of them marked, each asked
# for another word, the highest had 8.2; marked ones have 28 and more, 22 in JPEG of quality 50.
FOUND = 12.0
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # BT.601, as JPEG has it
MOST = 6.0  # grey levels: edges of the picture count no more than this


class Options(BaseModel):
    """What the mark may be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    word: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="frieze", description="whose pattern it is; published with the picture"
    )
    levels: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="grey levels of 255 by which a pixel changes"
    )


def mark(
    pixels_HWC: np.ndarray,
    row: int,
    *,
    frame: int | None,
    size: tuple[int, int],
    options: Options,
) -> np.ndarray:
    """Rows with the pattern; every frame of a clip has the same."""
    height, width, _ = pixels_HWC.shape
    signs_PQ = pattern(options.word)
    rows, columns = np.arange(row, row + height) % PERIOD, np.arange(width) % PERIOD
    top = np.iinfo(pixels_HWC.dtype).max
    change_HW = signs_PQ[np.ix_(rows, columns)].astype(np.int32) * (options.levels * top // 255)
    marked_HWC = pixels_HWC.astype(np.int32) + change_HW[..., None]
    return np.clip(marked_HWC, 0, top).astype(pixels_HWC.dtype)


def detect(pixels_HWC: np.ndarray, word: str = "frieze") -> float:
    """How surely a picture, or a part of one, has a word's pattern: more than `FOUND` is sure.

    Pixels are of 8 or 16 bits, at the size that they were drawn in, at least 128 a side. The score
    is the highest correlation of all places, by the standard deviation of all.
    """
    if min(pixels_HWC.shape[:2]) < PERIOD:
        raise ValueError(f"{pixels_HWC.shape[:2]} pixels hold no pattern; {PERIOD} a side do")
    scale = np.float32(np.iinfo(pixels_HWC.dtype).max / 255)
    fine_HW = np.clip(_without_lows(pixels_HWC[..., :3] @ LUMA / scale), -MOST, MOST)
    height, width = (side // PERIOD * PERIOD for side in fine_HW.shape)
    periods = fine_HW[:height, :width].reshape(height // PERIOD, PERIOD, width // PERIOD, PERIOD)
    sought_PQ = _without_lows(np.tile(pattern(word), (3, 3)).astype(np.float32))
    sought_PQ = sought_PQ[PERIOD : 2 * PERIOD, PERIOD : 2 * PERIOD]
    spectra = (np.fft.rfft2(found) for found in (periods.mean(axis=(0, 2)), sought_PQ))
    found_spectrum, sought_spectrum = spectra
    correlation_PQ = np.fft.irfft2(found_spectrum * sought_spectrum.conj())
    return float((correlation_PQ.max() - correlation_PQ.mean()) / (correlation_PQ.std() + 1e-12))


@lru_cache(maxsize=8)
def pattern(word: str) -> np.ndarray:
    """Signs [P, Q] of a word, int8, the same in every version: bits of SHAKE256."""
    data = hashlib.shake_256(word.encode()).digest(CELLS * CELLS // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(CELLS, CELLS)
    return np.kron(bits.astype(np.int8) * 2 - 1, np.ones((CELL, CELL), np.int8))


def _without_lows(values_HW: np.ndarray) -> np.ndarray:
    """Less the mean of three cells a side around each pixel."""
    lows_HW, side = values_HW.astype(np.float32), 3 * CELL
    for axis in (0, 1):
        edges = [(side // 2, side // 2) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(lows_HW, edges, "edge")
        sums = np.cumsum(padded, axis=axis, dtype=np.float64)
        count = values_HW.shape[axis]
        high, low = (np.take(sums, np.arange(count) + at, axis=axis) for at in (side - 1, 0))
        lows_HW = ((high - low) / (side - 1)).astype(np.float32)
    return values_HW - lows_HW
