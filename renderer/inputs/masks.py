"""Masks that users hand in: pictures that are not black where something else is wanted.

Shape suffixes: C channels, H, W rows and columns of latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import PlanError
from .sources import Source, fitted

if TYPE_CHECKING:
    import numpy as np


def check_shape(source: Source, field: str, height: int, width: int) -> None:
    """Raises `PlanError` for a mask whose sides are not as those of a picture, to half a pixel."""
    rows, columns = source.height, source.width
    if abs(columns * height - rows * width) <= max(height, width) / 2:
        return
    beside = (columns, round(columns * height / width)), (round(rows * width / height), rows)
    works = dict.fromkeys(f"{w}x{h}" for w, h in ((width, height), *beside) if min(w, h) > 0)
    raise PlanError(
        f"{field} {source.path!r} is {columns}x{rows} pixels and the picture {width}x{height}: a "
        f"mask of the picture's shape works, as {' or '.join(works)}"
    )


def nearest_cells(
    source: Source, height: int, width: int, num_frames: int = 1
) -> Iterator[np.ndarray]:
    """The mask [1, H, W] for each frame: 1 in cells whose nearest pixel is not black, else 0.

    Raises as `fitted`, to which transparent pixels are white.
    """
    import numpy as np

    for frame_CHW in fitted(source, source.height, source.width, num_frames):
        is_inside_HW: np.ndarray = np.any(frame_CHW > -1, axis=0)
        rows = np.arange(height) * source.height // height
        columns = np.arange(width) * source.width // width
        yield is_inside_HW[rows[:, None], columns][None].astype(np.float32)
