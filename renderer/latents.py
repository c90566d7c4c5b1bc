"""One stage's saved latents, in slots: float32, uncompressed, bit for bit.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .arrays import ZarrArray, check_aligned, read, write
from .errors import StoreError
from .pixels import LatentArray

if TYPE_CHECKING:
    from .homes import Home


def save(
    array: ZarrArray,
    described: LatentArray,
    home: Home,
    slot: int,
    rows: slice,
    latents_CTHW: np.ndarray,
    frames: slice | None = None,
) -> None:
    """Write one band's rows, of some `frames` or of all, into a slot.

    Raises `StoreError` if they cut a chunk or do not fit.
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
    write(array, home, region, latents_CTHW[None], settle=False)


def load(
    array: ZarrArray, home: Home, slot: int, rows: slice, frames: slice | None = None
) -> np.ndarray:
    """Latents [C, T, rows, W] of a slot; raises `StoreError` where they were never saved."""
    region = (slice(slot, slot + 1), slice(None), frames or slice(None), rows, slice(None))
    found_CTHW: np.ndarray = read(array, home, region)[0]
    return found_CTHW
