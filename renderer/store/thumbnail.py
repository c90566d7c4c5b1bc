"""A store's picture within so many pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .store import Store


def thumbnail(store: Store, side: int) -> Image.Image:
    """The picture, or a clip's middle frame, at most `side` pixels wide and high, in 8 bits.

    Made of the smallest level of the pyramid that has so many. Raises `StoreError` where its
    blocks are missing or damaged.
    """
    levels = store.layout.levels
    large = [level for level in levels if max(level.height, level.width) >= side]
    level = (large or levels[:1])[-1]
    frame = None if store.layout.frames is None else store.layout.frames // 2
    pixels_HWC = store.read_rows(0, level.height, level.index, frame)
    if pixels_HWC.dtype == np.uint16:
        pixels_HWC = (pixels_HWC // 257).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels_HWC))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
