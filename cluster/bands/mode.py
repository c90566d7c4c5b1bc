"""What torch functions mean on a band: unmodified modules, exact on any number of ranks.

Each rank holds rows [start, stop) of the canvas.  Inside `BandMode` the functions that mix rows
(`ROW_MIXERS` lists them all) take the canvas's meaning: convolutions and padding borrow rows from
the neighbours, group norm merges its moments over all ranks, attention in marked layers sees every
rank's keys.  What cannot be made exact raises `BandError`: a silent local result is a seam.

Shape suffixes: B batch, C channels, T frames, H rows, W columns, S tokens, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from frieze.kernels.group_norm import Moments, merge, moments, normalise

from ..attention import (
    AttentionModifier,
)
from ..comm import AxisComms, Comm, axis_comms
from ..layout import Band, Canvas, Mesh
from .attention import BandAttention
from .attention_override import AttentionOverride
from .convolution import BandConvolution
from .interpolation import BandInterpolation
from .layer_marks import LayerGuard, Marks, mark
from .row_mixers import Spans, row_mixer
from .tensor_shapes import BandError, CanvasShapes, refusal

__all__ = ["BandError", "BandMode", "Marks", "band_mode", "mark"]


class BandMode(TorchFunctionMode):
    """While active, on this thread, row-mixing functions mean what they mean on the whole canvas.

    `comm` joins the ranks, or is their `axis_comms` built before; `bands` are the latent rows of
    every rank of one canvas, from the top.  With the latent `canvas` a band's tensors and tokens
    are told by their sizes from the start, so more mistakes raise; without it they are learnt.
    A `modifier` changes and measures the attention of the layers in `marks` that are not local; on
    one rank that is all that is done then, and no mode is entered.
    On a clean exit every layer in `marks` must have attended here, else BandError.
    """

    def __init__(
        self,
        comm: Comm | AxisComms,
        bands: Sequence[Band],
        *,
        mesh: Mesh | None = None,
        marks: Sequence[Marks] = (),
        canvas: Canvas | None = None,
        modifier: AttentionModifier | None = None,
    ) -> None:
        super().__init__()
        self.comms = comm if isinstance(comm, AxisComms) else axis_comms(comm, mesh)
        self.comm = self.comms.world
        self.bands = _stacked(bands, self.comm.size)
        if canvas is not None and canvas.height != self.bands[-1].stop:
            raise BandError(f"bands of {self.bands[-1].stop} rows on a canvas of {canvas.height}")
        self.canvas = CanvasShapes(self.bands, self.comm.rank, canvas)
        wraps = canvas.wraps if canvas is not None else ""
        self.convolution = BandConvolution(self.comm, self.canvas, wraps)
        # One rank holds the canvas: every function means what it means anyway, and attention alone
        # is changed. The mode, which costs every torch call a detour, is not entered.
        self._is_whole = modifier is not None and self.comm.size == 1 and not wraps
        attend = BandAttention(self.comms, self.canvas, modifier, is_whole=self._is_whole).attend
        self.guard = LayerGuard(marks, AttentionOverride(attend) if self._is_whole else None)
        self._meanings: dict[str, Callable[..., Tensor]] = {
            "convolve": self.convolution.convolve,
            "pad": self.convolution.pad,
            "constant_pad_nd": self.convolution.constant_pad_nd,
            "group_norm": self.group_norm,
            "interpolate": BandInterpolation(self.comm, self.canvas, wraps).interpolate,
            "attend": attend,
        }

    def __enter__(self) -> BandMode:
        self.guard.begin()
        if not self._is_whole:
            super().__enter__()
        return self

    def __exit__(self, error_type: Any, error: Any, traceback: Any) -> None:
        if not self._is_whole:
            super().__exit__(error_type, error, traceback)
        self.guard.end()
        if error_type is None:
            self.guard.check_all_ran()

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        mixer = row_mixer(function)
        padded = self.convolution.padded((args, kwargs))
        if padded and mixer != Spans("convolve"):
            return self.convolution.beside(function, padded[0], args, kwargs)
        if isinstance(mixer, Spans):
            return self._meanings[mixer.meaning](function, *args, **kwargs)
        if mixer is not None and not self._is_local() and not self._joins_tokens(mixer):
            reason = mixer(self.canvas, *args, **kwargs)
            if reason is not None:
                raise refusal(function, (args, kwargs), reason)
        return function(*args, **kwargs)

    def _is_local(self) -> bool:
        call = self.guard.innermost
        return call is not None and call.marks.local

    def _joins_tokens(self, mixer: Any) -> bool:
        """Does a marked layer join text to its tokens? [B, heads, S, D] may look like a map."""
        call = self.guard.innermost
        return call is not None and call.context is not None and getattr(mixer, "maps_only", False)

    def group_norm(
        self,
        function: Any,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        """Normalises with the moments of the whole canvas, merged in rank order."""
        if input.ndim < 3:  # no rows: the groups of each example stand alone
            return function(input, num_groups, weight, bias, eps)
        self.canvas.learn_map(input)
        parts = self.comm.all_gather(moments(input, num_groups).packed_3BG)
        whole = merge([Moments(part) for part in parts])
        return normalise(input, num_groups, weight, bias, eps, whole)


def band_mode(
    comm: Comm | AxisComms,
    bands: Sequence[Band],
    *,
    mesh: Mesh | None = None,
    marks: Sequence[Marks] = (),
    canvas: Canvas | None = None,
    modifier: AttentionModifier | None = None,
    always: bool = False,
) -> AbstractContextManager[Any]:
    """A `BandMode`; nothing at all where one rank holds the canvas and there is no `modifier`.

    `always` enters it there too.
    """
    wraps = canvas is not None and canvas.wraps
    if len(bands) == 1 and modifier is None and not always and not wraps:
        return nullcontext()
    return BandMode(comm, bands, mesh=mesh, marks=marks, canvas=canvas, modifier=modifier)


def _stacked(bands: Sequence[Band], num_ranks: int) -> tuple[Band, ...]:
    """The bands, if there is one for each rank and they stack from row 0 without a gap."""
    joined = all(upper.stop == lower.start for upper, lower in pairwise(bands))
    if len(bands) != num_ranks or bands[0].start or not joined or not all(b.rows for b in bands):
        raise BandError(
            f"{num_ranks} ranks need {num_ranks} bands that stack from row 0 without gaps, each of "
            f"at least 1 row; got {[(b.start, b.stop) for b in bands]}"
        )
    return tuple(bands)
