"""`interpolate` on a band: nearest stays within it, bilinear and bicubic borrow rows.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..comm import Comm
from ..layout import LayoutError
from .row_mixers import nearest_within_rows, row_scale
from .tensor_shapes import CanvasShapes, refusal

REACH = {"bilinear": 1, "bicubic": 2}  # rows of the input on either side of a row of the result


class BandInterpolation:
    """Maps grown and shrunk as if on the whole canvas."""

    def __init__(self, comm: Comm, canvas: CanvasShapes, wraps: str = "") -> None:
        self.comm = comm
        self.canvas = canvas
        self.wraps = wraps

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
        if self.wraps:
            raise refusal(function, input, "it repeats edges, and the canvas has none; use nearest")
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
