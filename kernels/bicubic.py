"""A window of a picture enlarged by bicubic interpolation, without the rest of it.

What `interpolate(mode="bicubic", align_corners=False)` makes, in the picture's own precision.
Shape suffixes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = -0.75  # torch's; the kernel of Keys (IEEE ASSP 1981) with this slope at distance 1


def enlarge(
    x_BCHW: Tensor,
    size: tuple[int, int],
    rows: range,
    columns: range,
    *,
    first: int = 0,
    height: int | None = None,
    wraps: str = "",
) -> Tensor:
    """These rows and columns of a picture enlarged to `size`, [B, C, len(rows), len(columns)].

    Of a picture of `height` rows x may be those from `first` on which `source_rows` names. Where
    sides meet (`wraps`: x, y, xy) the other side follows, and places may lie beyond them.
    """
    y, x = ("y" in wraps, "x" in wraps)
    tall = _along(x_BCHW, -2, size[0], rows, height or x_BCHW.shape[-2], first, wraps=y)
    return _along(tall, -1, size[1], columns, x_BCHW.shape[-1], wraps=x)


def source_rows(rows: range, source: int, target: int) -> range:
    """The rows of a picture of `source` rows that these of its enlargement are made of."""
    first, last = (((2 * row + 1) * source - target) // (2 * target) for row in (rows[0], rows[-1]))
    return range(max(0, first - 1), min(source, last + 3))


def _along(
    x: Tensor,
    dim: int,
    target: int,
    places: range,
    source: int,
    held: int = 0,
    *,
    wraps: bool = False,
) -> Tensor:
    """Four neighbours of each place along one dimension, by their weights; x begins at `held`."""
    numbers = torch.arange(places.start, places.stop, device=x.device)
    # Exact in integers: float32 places of a large canvas would depend on where they are.
    doubled = (2 * numbers + 1) * source - target
    first = torch.div(doubled, 2 * target, rounding_mode="floor")
    part = (doubled - first * 2 * target).double() / (2 * target)
    shape = [1] * x.ndim
    shape[dim] = len(places)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for offset in (-1, 0, 1, 2):
        weight = kernel((part - offset).abs()).to(x.dtype).view(shape)
        near = (first + offset) % source if wraps else (first + offset).clamp(0, source - 1)
        total = total + x.index_select(dim, near - held) * weight
    return total


def kernel(distance: Tensor) -> Tensor:
    """Keys' cubic kernel at distances from 0 to 2, those of four neighbours."""
    a, d = SHARPNESS, distance
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, inner, outer)
