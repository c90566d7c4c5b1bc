"""`interpolate` on a band: nearest stays within it, bilinear and bicubic borrow rows.

And canvases resized to any larger number of rows, on bands that follow from the old ones.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels.reference import wide

from ..comm import Comm
from ..layout import Band, LayoutError
from .row_mixers import nearest_within_rows, row_scale
from .tensor_shapes import CanvasShapes, refusal

REACH = {"bilinear": 1, "bicubic": 2}  # rows of the input on either side of a row of the result


class BandInterpolation:
    """Maps grown and shrunk as if on the whole canvas."""

    def __init__(self, comm: Comm, canvas: CanvasShapes) -> None:
        self.comm = comm
        self.canvas = canvas

    def interpolate(
        self,
        function: Any,
        input: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> Tensor:
        """The band's rows of the result; BandError where its edges do not fall between rows.

        Blending modes call the function on a piece with the neighbours' rows and crop what these
        made; the canvas' edge has none, so that the function repeats it as it would there.
        """
        options = (align_corners, recompute_scale_factor, antialias)
        if mode not in REACH or input.ndim != 4:
            reason = nearest_within_rows(self.canvas, input, size, scale_factor, mode)
            if reason is not None:
                raise refusal(function, input, reason)
            return function(input, size, scale_factor, mode, *options)
        if align_corners or antialias:
            raise refusal(
                function,
                input,
                f"align_corners={bool(align_corners)}, antialias={antialias}: a row then depends "
                "on the canvas' height or on rows far away; leave both off",
            )
        self.canvas.learn_map(input)
        rows = input.shape[-2]
        scale = row_scale(rows, size, scale_factor)
        try:
            bands = self.canvas.at(self.canvas.resolution(rows))
            self.canvas.at(self.canvas.resolution(rows) * scale)
        except LayoutError as error:
            raise refusal(function, input, str(error)) from error
        # Whole blocks of rows, so that rows of the result begin where the piece does.
        reach = scale.denominator * -(-REACH[mode] // scale.denominator)
        height, own = bands[-1].stop, bands[self.comm.rank]
        wanted = [range(max(b.start - reach, 0), min(b.stop + reach, height)) for b in bands]
        piece = self.comm.gather_rows(input, bands, wanted, -2)
        if size is not None:
            size = (int(piece.shape[-2] * scale), size if isinstance(size, int) else size[-1])
        piece = function(piece, size, scale_factor, mode, *options)
        above = own.start - wanted[self.comm.rank].start
        return piece.narrow(-2, int(above * scale), int(rows * scale))


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
