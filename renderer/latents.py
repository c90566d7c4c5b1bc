"""One stage's saved latents, in slots: float32, uncompressed, bit for bit.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from .arrays import ZarrArray, check_aligned, write
from .errors import StoreError
from .pixels import LatentArray

if TYPE_CHECKING:
    from .directory import StoreDirectory


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
