"""Convolutions on a band: which rows they borrow, and padding as a borrowed row in waiting.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..comm import Comm
from ..layout import Band, Halo, LayoutError, conv_rows
from .tensor_shapes import CanvasShapes, refusal, tensors_in

Sides = tuple[int, int]  # zeros before and after


class Geometry(NamedTuple):
    """How a convolution walks over rows; `padding` above and below the canvas."""

    kernel: int
    stride: int
    padding: Sides
    dilation: int


class BandConvolution:
    """Convolutions and the padding before them, as if on the whole canvas.

    Where sides of it meet (`wraps`), rows or columns from the other side stand for zeros.
    """

    def __init__(self, comm: Comm, canvas: CanvasShapes, wraps: str = "") -> None:
        self.comm = comm
        self.canvas = canvas
        self.wraps = wraps
        self._halos: dict[tuple[int, Geometry], Halo] = {}
        self._padded = WeakTensorKeyDictionary()  # placeholder -> (tensor, sides of each dim)

    def convolve(
        self,
        function: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        """Borrows the rows that this band's outputs read, then convolves without row padding."""
        if input.ndim != weight.ndim:
            raise refusal(function, input, "give it a batch dim, so that rows can be told apart")
        kernel, num_dims = weight.shape[2:], weight.ndim - 2
        stride, dilation = per_dim(stride, num_dims), per_dim(dilation, num_dims)
        input, before = self._padded.get(input, (input, ()))
        sides = _total_sides(padding, kernel, dilation, before)
        halo = self._halo(
            function, input, Geometry(kernel[-2], stride[-2], sides[-2], dilation[-2])
        )
        if halo != Halo(0, 0):
            borrow = self.comm.borrow_around if "y" in self.wraps else self.comm.borrow
            input = borrow(input, halo, dim=-2)
        sides[-2] = (0, 0)
        if "x" in self.wraps:
            input, sides[-1] = around(input, *sides[-1]), (0, 0)
        both = tuple(min(pair) for pair in sides)  # what the convolution itself can pad
        rest = [(a - each, b - each) for (a, b), each in zip(sides, both, strict=True)]
        if any(map(any, rest)):
            input = F.pad(input, [side for pair in reversed(rest) for side in pair])
        output = function(input, weight, bias, stride, both, dilation, groups)
        if kernel[-2] > 1:
            self.canvas.learn_map(output)
        return output

    def _halo(self, function: Any, x: Tensor, geometry: Geometry) -> Halo:
        """The rows to borrow, the same on every rank; BandError says which geometry would be."""
        if geometry[:3] == (1, 1, (0, 0)):
            return Halo(0, 0)
        self.canvas.learn_map(x)
        key = (x.shape[-2], geometry)
        if key not in self._halos:
            resolution = self.canvas.resolution(x.shape[-2])
            try:
                bands = self.canvas.at(resolution)
                wanted = self.canvas.at(resolution / geometry.stride)
                self._halos[key] = _agreed(bands, wanted, geometry)
            except LayoutError as error:
                raise refusal(function, x, str(error)) from error
        return self._halos[key]

    def pad(
        self,
        function: Any,
        input: Tensor,
        pad: Sequence[int],
        mode: str = "constant",
        value: float | None = None,
    ) -> Tensor:
        """Zeros above and below a band are the halo of the convolution that reads them.

        Nothing is borrowed yet: the result is a placeholder of NaN without memory of its own, and
        any function but a convolution that takes it is refused.
        """
        sides = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
        wraps = "x" in self.wraps and input.ndim >= 4 and any(sides[0])
        if not any(map(any, sides[1:2])) and not wraps:
            return function(input, pad, mode, value)
        if input.ndim < 4:
            if input.shape[-2] in self.canvas.token_counts:
                raise refusal(function, input, "it adds tokens to every band; pad the text alone")
            return function(input, pad, mode, value)
        if mode != "constant" or value or min(sides[1]) < 0:
            raise refusal(
                function,
                input,
                f"rows padded by {sides[1]} in mode {mode!r} with value {value or 0}: only zeros "
                "before a convolution can stand for borrowed rows",
            )
        if any(map(any, sides[input.ndim - 2 :])):
            raise refusal(function, input, "it pads rows and channels at once; use two calls")
        return self._placeholder(input, tuple(reversed(sides)))

    def constant_pad_nd(
        self, function: Any, input: Tensor, pad: Sequence[int], value: float = 0
    ) -> Tensor:
        """The operator behind `pad`."""
        return self.pad(F.pad, input, pad, "constant", value)

    def _placeholder(self, x: Tensor, sides: tuple[Sides, ...]) -> Tensor:
        shape = list(x.shape)
        for i, pair in enumerate(reversed(sides), start=1):
            shape[-i] += sum(pair)
        filler = torch.nan if x.is_floating_point() else 0
        placeholder = x.new_full((), filler).expand(shape)
        self._padded[placeholder] = (x, sides)
        return placeholder

    def padded(self, arguments: Any) -> list[Tensor]:
        """The placeholders among the arguments of a call."""
        if not self._padded.data:  # asked at every torch call: nearly always there is none
            return []
        return [x for x in tensors_in(arguments) if x in self._padded]

    def beside(
        self, function: Any, placeholder: Tensor, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """What else may happen to a placeholder: shapes are asked, dtype and layout changed."""
        if function in _KEEPS_ROWS and args and placeholder is args[0]:
            x, sides = self._padded[placeholder]
            return self._placeholder(function(x, *args[1:], **kwargs), sides)
        reason = "its padded rows are rows of other bands, which only a convolution borrows"
        try:
            result = function(*args, **kwargs)
        except RuntimeError as error:  # such as writing to a tensor without memory of its own
            raise refusal(function, placeholder, reason) from error
        if result is None or any(True for _ in tensors_in(result)):
            raise refusal(function, placeholder, reason)
        return result


_KEEPS_ROWS = frozenset(
    getattr(Tensor, name)
    for name in ("to", "type", "type_as", "float", "half", "bfloat16", "double", "contiguous")
)


def _agreed(bands: Sequence[Band], wanted: Sequence[Band], geometry: Geometry) -> Halo:
    """The halo of every band, if outputs fall on the bands wanted; else LayoutError."""
    kernel, stride, padding, dilation = geometry
    height = bands[-1].stop
    needs = [
        conv_rows(band, height, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        for band in bands
    ]
    made = tuple(band for band, _ in needs)
    if made != tuple(wanted):
        raise LayoutError(
            f"kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation} turn "
            f"{height} canvas rows into {made[-1].stop}; {wanted[-1].stop} would keep bands aligned"
        )
    (halo,) = {halo for _, halo in needs}
    most, shortest = max(halo.above, halo.below), min(band.rows for band in bands)
    if len(bands) > 1 and most > shortest:
        raise LayoutError(
            f"it borrows {most} rows, but the shortest band has {shortest} at this resolution; "
            "cut taller bands or use fewer ranks"
        )
    return halo


def around(x: Tensor, left: int, right: int) -> Tensor:
    """With so many columns of the other side on either side."""
    if not (left or right):
        return x
    return torch.cat([x[..., x.shape[-1] - left :], x, x[..., :right]], dim=-1)


def per_dim(value: Any, num_dims: int) -> tuple[int, ...]:
    """One number for each spatial dim."""
    values = tuple(value) if isinstance(value, Iterable) else (value,)
    return values * num_dims if len(values) == 1 else values


def _total_sides(
    padding: Any, kernel: Sequence[int], dilation: Sequence[int], before: Sequence[Sides]
) -> list[Sides]:
    """Zeros around each spatial dim: the convolution's own and those of the `F.pad` before it."""
    if padding == "same":
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        own = [(r // 2, r - r // 2) for r in reach]
    else:
        own = [(p, p) for p in per_dim(0 if padding == "valid" else padding, len(kernel))]
    before = [*[(0, 0)] * (len(own) - len(before)), *before][-len(own) :]
    return [(a + c, b + d) for (a, b), (c, d) in zip(own, before, strict=True)]
