"""Alpha of a picture that is made larger: enlarged by itself, and put back behind its colours.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alpha:
    """That of the picture itself, of so many rows: `read` gives some, [H, W] in [0, 1]."""

    height: int
    read: Callable[[slice], np.ndarray]


def with_alpha(
    strips: Iterator[tuple[int, np.ndarray]], alpha: Alpha | None, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of a picture of so many rows and columns with alpha, [H, W, 4], where there is any.

    The colours lie on white; those that are given back look so on white. Alpha is enlarged by
    bicubic interpolation.
    """
    if alpha is None:
        yield from strips
        return
    import torch

    from frieze.kernels import bicubic

    for first, rows_HWC in strips:
        rows = range(first, first + len(rows_HWC))
        held = bicubic.source_rows(rows, alpha.height, size[0])
        small_HW = torch.from_numpy(alpha.read(slice(held.start, held.stop)))
        place = (size, rows, range(size[1]))
        large = bicubic.enlarge(small_HW[None, None], *place, first=held.start, height=alpha.height)
        yield first, straight(rows_HWC, large[0, 0].clamp(0, 1).numpy())


def straight(rows_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Colours that lie on white, and alpha, as straight RGBA of the same depth."""
    top = np.iinfo(rows_HWC.dtype).max
    alpha_HWC = np.round(alpha_HW[..., None] * top) / top
    lack_HWC = 1 - rows_HWC.astype(np.float64) / top
    colour_HWC = 1 - np.minimum(1, lack_HWC / np.maximum(alpha_HWC, 1 / top))
    rgba_HWC = np.concatenate([colour_HWC, alpha_HWC], axis=2)
    return np.asarray(np.round(rgba_HWC * top), dtype=rows_HWC.dtype)
