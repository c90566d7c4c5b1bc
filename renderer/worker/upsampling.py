"""Bicubic or linear enlargement of latents, band by band, equal to enlarging the whole canvas.

Interpolation along an axis is a matrix; a band needs only the matrix rows it owns and the few
source rows on which those are not zero. The matrix is torch's own, float32 places and all: the
same latents as diffusers' and the authors' cascades make. `kernels/bicubic.py`, whose places are
exact and need no matrix of a canvas' width, differs by some 1e-6 where sizes are no power of two.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.layout import Band
from frieze.kernels import bicubic

Interpolation = Literal["bicubic", "bilinear"]


@lru_cache(maxsize=16)
def weights(source: int, target: int, mode: Interpolation = "bicubic") -> Tensor:
    """The [target, source] matrix of interpolation along one axis, float32."""
    eye = torch.eye(source)[None, None]
    full = F.interpolate(eye, size=(target, source), mode=mode, align_corners=False)
    return full[0, 0]


def source_rows(band: Band, source: int, target: int, mode: Interpolation = "bicubic") -> Band:
    """The source rows on which a band of target rows depends."""
    used = weights(source, target, mode)[band.start : band.stop].ne(0).any(dim=0).nonzero()
    return Band(int(used.min()), int(used.max()) + 1)


@lru_cache(maxsize=16)
def weights_around(source: int, target: int, mode: Interpolation = "bicubic") -> Tensor:
    """The same where the axis' ends meet: what would lie beyond one of them is at the other."""
    place = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    first, matrix = place.floor().long(), torch.zeros(target, source, dtype=torch.float64)
    for offset in (-1, 0, 1, 2):
        distance = (place - first - offset).abs()
        weight = bicubic.kernel(distance) if mode == "bicubic" else (1 - distance).clamp(min=0)
        matrix.scatter_add_(1, ((first + offset) % source)[:, None], weight[:, None])
    return matrix.float()


def enlarged_around(
    read: Callable[[Band], Tensor],
    source: tuple[int, int],
    band: Band,
    target: tuple[int, int],
    mode: Interpolation,
    wraps: str,
) -> Tensor:
    """As `enlarge`, of a canvas some of whose sides meet (`wraps`: x, y, xy).

    `read` gives rows of the small one [C, T, h, W]; those that are asked may lie at both ends.
    """
    of_rows, of_columns = (
        (weights_around if side in wraps else weights)(small, large, mode)
        for side, small, large in zip("yx", source, target, strict=True)
    )
    own = of_rows[band.start : band.stop]
    used = own.ne(0).any(dim=0).nonzero().flatten().tolist()
    ends = [i for i, (a, b) in enumerate(pairwise(used), 1) if b != a + 1]
    runs = [used[a:b] for a, b in pairwise([0, *ends, len(used)])]
    found = torch.cat([read(Band(run[0], run[-1] + 1)) for run in runs], dim=-2)
    return torch.einsum("cthw,yh,xw->ctyx", found.float(), own[:, used], of_columns)


def enlarge(
    rows_CTHW: Tensor,
    held: Band,
    source: tuple[int, int],
    band: Band,
    target: tuple[int, int],
    mode: Interpolation = "bicubic",
) -> Tensor:
    """Target rows `band` of the enlarged canvas from the source rows `held` of the small one."""
    whole = weights(source[0], target[0], mode)
    row_weights = whole[band.start : band.stop, held.start : held.stop]
    column_weights = weights(source[1], target[1], mode)
    return torch.einsum("cthw,yh,xw->ctyx", rows_CTHW.float(), row_weights, column_weights)
