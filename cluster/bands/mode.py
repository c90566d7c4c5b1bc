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
from functools import partial
from itertools import pairwise
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from frieze.kernels.decay import Decay
from frieze.kernels.group_norm import Moments, merge, moments, normalise

from ..attention import (
    AttentionChange,
    AttentionModifier,
    Context,
    canvas_attention,
    canvas_entropy,
    fused_features,
    shaped_attention,
)
from ..comm import AxisComms, Comm, axis_comms
from ..layout import Band, Canvas, LayoutError, Mesh
from .attention_override import AttentionOverride
from .convolution import BandConvolution
from .interpolation import BandInterpolation
from .layer_marks import Call, LayerGuard, Marks, mark
from .row_mixers import Spans, row_mixer
from .tensor_shapes import BandError, CanvasShapes, TokenGrid, refusal

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
        self.convolution = BandConvolution(self.comm, self.canvas)
        self.modifier = modifier
        # One rank holds the canvas: every function means what it means anyway, and attention alone
        # is changed. The mode, which costs every torch call a detour, is not entered.
        self._is_whole = modifier is not None and self.comm.size == 1
        self.guard = LayerGuard(marks, AttentionOverride(self.attend) if self._is_whole else None)
        self._meanings: dict[str, Callable[..., Tensor]] = {
            "convolve": self.convolution.convolve,
            "pad": self.convolution.pad,
            "constant_pad_nd": self.convolution.constant_pad_nd,
            "group_norm": self.group_norm,
            "interpolate": BandInterpolation(self.comm, self.canvas).interpolate,
            "attend": self.attend,
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
        parts = self.comm.all_gather(moments(input, num_groups).pack())
        whole = merge([Moments.unpack(part) for part in parts])
        return normalise(input, num_groups, weight, bias, eps, whole)

    def attend(
        self,
        function: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attention over the whole canvas in a marked layer; in others it must not need to be.

        What the layer's attention is to be the modifier decides once; then it is measured, if
        asked, and computed: by the plain function where one rank holds all tokens and no logit
        changes by itself, else by all ranks.
        """
        call = self.guard.innermost
        if call is None or call.marks.local:
            if call is None:
                self._check_unmarked(function, query, key)
            rest = (attn_mask, dropout_p, is_causal)
            return function(query, key, value, *rest, scale=scale, enable_gqa=enable_gqa)
        call.num_attentions += 1
        _check_reach(function, query, call, attn_mask, dropout_p, is_causal)
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
        change = AttentionChange(query, key)
        if self.modifier is not None:
            change = self.modifier.change(call.name, query, key)
        query, key, scale = change.q_BHSD, change.k_BHSD, change.scaled(scale)
        if change.probe is not None:
            place = self._place(function, (query, key, value), call, change)
            change.probe(canvas_entropy(query, key, pooled=change.pooled, scale=scale, **place))
        if change.shape is not None:
            shaped = self._shaped(function, (query, key, value), call, change, scale)
            if shaped is not None:
                return shaped
        if self._is_whole and change.keeps_logits:  # all tokens are here
            return function(query, key, value, attn_mask, scale=scale)
        place = self._place(function, (query, key, value), call, change)
        return canvas_attention(query, key, value, scale=scale, **place)

    def _shaped(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        change: AttentionChange,
        scale: float | None,
    ) -> Tensor | None:
        """Attention in windows, with the canvas or without; None where the canvas is asked."""
        assert change.shape is not None
        self._token_counts(function, qkv, call)
        grid = self._grid(function, qkv[0], call)
        shape = change.shape(grid.rows, grid.columns)
        if shape is None:
            return None
        if change.decay is not None or change.probe is not None:
            raise refusal(function, qkv, "decay and entropy are of the canvas, not of windows")
        if shape.fuses_features:
            if call.context is not None:
                raise refusal(
                    function,
                    qkv,
                    f"layer {call.name!r}: features are not fused where text is joined to the "
                    "image's tokens, for they part before the projection; fuse rows and columns",
                )
            assert shape.fusion is not None
            call.finished = partial(fused_features, fusion=shape.fusion)
        return shaped_attention(
            *qkv,
            comms=self.comms,
            bands=grid.bands,
            width=grid.columns,
            shape=shape,
            scale=scale,
            context=call.context,
            num_frames=grid.frames,
        )

    def _grid(self, function: Any, query: Tensor, call: Call) -> TokenGrid:
        """Rows and columns of this layer's tokens."""
        num_text = call.context.num_tokens if call.context else 0
        grid, reason = None, "give the mode its latent canvas"
        try:
            grid = self.canvas.grid_of(query.shape[2] - num_text)
        except LayoutError as error:
            reason = str(error)
        if grid is None:
            raise refusal(
                function,
                query,
                f"layer {call.name!r}: it is not known which rows and columns these tokens are; "
                f"{reason}",
            )
        return grid

    def _place(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        change: AttentionChange,
    ) -> _Place:
        """Where the tokens of a call lie; frames are counted only for what depends on them."""
        by_frame = change.decay is not None or change.pooled is not None
        return {
            "comms": self.comms,
            "tokens": self._token_counts(function, qkv, call),
            "context": call.context,
            "decay": change.decay,
            "num_frames": self._num_frames(function, qkv[0], call) if by_frame else 1,
        }

    def _num_frames(self, function: Any, query: Tensor, call: Call) -> int:
        """Frames of this layer's tokens."""
        num_text = call.context.num_tokens if call.context else 0
        num_frames = self.canvas.frames_of(query.shape[2] - num_text)
        if num_frames is None:
            raise refusal(
                function,
                query,
                f"layer {call.name!r}: it is not known how many frames these tokens are; "
                "give the mode its latent canvas",
            )
        return num_frames

    def _token_counts(
        self, function: Any, qkv: tuple[Tensor, Tensor, Tensor], call: Call
    ) -> tuple[int, ...]:
        """Image tokens of every rank."""
        query, *others = qkv
        if query.ndim != 4 or any(x.shape != query.shape for x in others):
            raise refusal(
                function,
                qkv,
                f"layer {call.name!r}: attention over a canvas takes query, key and value of one "
                "shape [batch, heads, tokens, head dim]; do not mark cross-attention",
            )
        num_text = call.context.num_tokens if call.context else 0
        num_image = query.shape[2] - num_text
        tokens = self.canvas.tokens_of_all(num_image)
        if tokens is None:
            raise refusal(
                function,
                query,
                f"layer {call.name!r}: {query.shape[2]} tokens less {num_text} of text do not make "
                f"{self.canvas.band.rows} rows like those of the other bands; state the layer's "
                "context, or cut bands at multiples of the patch",
            )
        self.canvas.token_counts |= {num_image, query.shape[2]}
        return tokens

    def _check_unmarked(self, function: Any, query: Tensor, key: Tensor) -> None:
        """Refuses self-attention, and queries from elsewhere that ask this band's tokens."""
        num_queries, num_keys = query.shape[-2], key.shape[-2]
        known = self.canvas.token_counts
        if num_queries == num_keys or (num_keys in known and num_queries not in known):
            raise refusal(
                function,
                (query, key),
                f"{num_queries} queries ask {num_keys} keys in a layer that is not marked, so it "
                "would end at this band's edge; mark it (with local=True if it should end there)",
            )


class _Place(TypedDict):
    """Where the tokens of one attention lie on the canvas, as `canvas_attention` takes it."""

    comms: AxisComms
    tokens: Sequence[int]
    context: Context | None
    decay: Decay | None
    num_frames: int


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
    if len(bands) == 1 and modifier is None and not always:
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


def _check_reach(
    function: Any,
    query: Tensor,
    call: Call,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
) -> None:
    """Refuses what would need to know which tokens of the other bands a query may see."""
    if is_causal or dropout_p or not _is_open(mask):
        raise refusal(
            function,
            query,
            f"layer {call.name!r}: is_causal={is_causal}, dropout_p={dropout_p} or a mask with "
            "gaps do not reach beyond this band; drop padded text instead of masking it",
        )


def _is_open(mask: Tensor | None) -> bool:
    """Does this mask let every query see every key? One without values is taken to."""
    if mask is None or mask.is_meta:
        return True
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())
