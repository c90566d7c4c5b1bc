"""Canvases resized to any larger number of rows, on bands that follow from the old ones.

Shape suffixes: R rows, C columns, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels.reference import wide

from ..comm import Comm
from ..layout import Band


def resized_bands(bands: Sequence[Band], height: int) -> tuple[Band, ...]:
    """The bands of a canvas of another height, in proportion; none is empty if it is larger."""
    edges = [band.stop * height // bands[-1].stop for band in bands]
    return tuple(Band(start, stop) for start, stop in zip([0, *edges], edges, strict=False))


def resized(
    x: Tensor, comm: Comm, bands: Sequence[Band], to_bands: Sequence[Band], width: int
) -> Tensor:
    """This rank's rows of a canvas [..., R, C, D] as bicubic interpolation makes another of it.

    It has `width` columns and `to_bands` for rows.  Interpolation is a product with a matrix along
    each dim, so a rank needs those rows alone on which its own are not zero.
    """
    rows = bicubic_weights(bands[-1].stop, to_bands[-1].stop)
    wanted = [_reach(rows[band.start : band.stop]) for band in to_bands]
    piece, own = comm.gather_rows(x, bands, wanted, -3), to_bands[comm.rank]
    reached = wanted[comm.rank]
    accumulate = wide(x.dtype)
    rows = rows[own.start : own.stop, reached.start : reached.stop].to(x.device, accumulate)
    columns = bicubic_weights(x.shape[-2], width).to(x.device, accumulate)
    made = torch.einsum("...rcd,yr,xc->...yxd", piece.to(accumulate), rows, columns)
    return made.to(x.dtype)


def bicubic_weights(source: int, target: int) -> Tensor:
    """The [target, source] matrix of bicubic interpolation along one dim, float64."""
    eye = torch.eye(source, dtype=torch.float64)[None, None]
    return F.interpolate(eye, size=(target, source), mode="bicubic")[0, 0]


def _reach(weights: Tensor) -> range:
    """Columns of a matrix from the first to the last that is not zero."""
    used = weights.ne(0).any(dim=0).nonzero()
    return range(int(used.min()), int(used.max()) + 1)
