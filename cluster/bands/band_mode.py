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

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from frieze.kernels.group_norm import Moments, merge, moments, normalise

from ..comm import AxisComms, Comm, axis_comms
from ..layout import Band, Canvas, Mesh
from .attention_entropy import canvas_entropy
from .attention_modifier import AttentionModifier
from .attention_override import AttentionOverride
from .canvas_attention import Context, canvas_attention
from .convolution import BandConvolution
from .layer_marks import Call, LayerGuard, Marks, mark
from .row_mixers import Spans, row_mixer
from .tensor_shapes import BandError, CanvasShapes, refusal

__all__ = ["BandError", "BandMode", "Context", "Marks", "band_mode", "mark"]


class BandMode(TorchFunctionMode):
    """While active, on this thread, row-mixing functions mean what they mean on the whole canvas.

    `comm` joins the ranks, or is their `axis_comms` built before; `bands` are the latent rows of
    every rank of one canvas, from the top.  With the latent `canvas` a band's tensors and tokens
    are told by their sizes from the start, so more mistakes raise; without it they are learnt.
    A `tuning` changes and measures the attention of the layers in `marks` that are not local; on
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
        tuning: AttentionModifier | None = None,
    ) -> None:
        super().__init__()
        self.comms = comm if isinstance(comm, AxisComms) else axis_comms(comm, mesh)
        self.comm = self.comms.world
        self.bands = _stacked(bands, self.comm.size)
        if canvas is not None and canvas.height != self.bands[-1].stop:
            raise BandError(f"bands of {self.bands[-1].stop} rows on a canvas of {canvas.height}")
        self.canvas = CanvasShapes(self.bands, self.comm.rank, canvas)
        self.convolution = BandConvolution(self.comm, self.canvas)
        self.tuning = tuning
        # Here every function means what it means anyway, and only the tuning is to be done: the
        # mode, which costs every torch call a detour, is not entered.
        self._only_tunes = tuning is not None and self.comm.size == 1
        self.watch = LayerGuard(marks, AttentionOverride(self.attend) if self._only_tunes else None)
        self._meanings: dict[str, Callable[..., Tensor]] = {
            "convolve": self.convolution.convolve,
            "pad": self.convolution.pad,
            "constant_pad_nd": self.convolution.constant_pad_nd,
            "group_norm": self.group_norm,
            "attend": self.attend,
        }

    def __enter__(self) -> BandMode:
        self.watch.begin()
        if not self._only_tunes:
            super().__enter__()
        return self

    def __exit__(self, error_type: Any, error: Any, traceback: Any) -> None:
        if not self._only_tunes:
            super().__exit__(error_type, error, traceback)
        self.watch.end()
        if error_type is None:
            self.watch.check_all_ran()

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
        call = self.watch.innermost
        return call is not None and call.marks.local

    def _joins_tokens(self, mixer: Any) -> bool:
        """Does a marked layer join text to its tokens? [B, heads, S, D] may look like a map."""
        call = self.watch.innermost
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
        """Attention over the whole canvas in a marked layer; in others it must not need to be."""
        call = self.watch.innermost
        if call is None or call.marks.local:
            if call is None:
                self._check_unmarked(function, query, key)
            rest = (attn_mask, dropout_p, is_causal)
            return function(query, key, value, *rest, scale=scale, enable_gqa=enable_gqa)
        call.num_attentions += 1
        if is_causal or dropout_p or not _is_open(attn_mask):
            raise refusal(
                function,
                query,
                f"layer {call.name!r}: is_causal={is_causal}, dropout_p={dropout_p} or a mask with "
                "gaps do not reach beyond this band; drop padded text instead of masking it",
            )
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
        options: dict[str, Any] = {"comms": self.comms, "scale": scale, "context": call.context}
        if not self._needs_no_counts:
            options["tokens"] = self._token_counts(function, (query, key, value), call)
        if self.tuning is not None:
            query, key = self._tune(self.tuning, function, query, key, call, options)
            if self._only_tunes and self.tuning.decay is None:
                return function(query, key, value, attn_mask, scale=options["scale"])
        return canvas_attention(query, key, value, **options)

    @property
    def _needs_no_counts(self) -> bool:
        """Whether no tokens lie elsewhere, and those that are here are scaled alone."""
        tuning = self.tuning
        return self._only_tunes and tuning is not None and not (tuning.probe or tuning.decay)

    def _tune(
        self,
        tuning: AttentionModifier,
        function: Any,
        query: Tensor,
        key: Tensor,
        call: Call,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Tuned queries and keys, measured if asked; adds to the options of `canvas_attention`."""
        query, key = tuning.tuned(call.name, query, key)
        if (factor := tuning.factor(query.shape[2])) != 1.0:
            plain = options["scale"] if options["scale"] is not None else query.shape[-1] ** -0.5
            options["scale"] = plain * factor
        pooled = None if tuning.probe is None else tuning.pooled
        if tuning.decay is not None or pooled is not None:
            options["decay"] = tuning.decay
            options["num_frames"] = self._num_frames(function, query, call)
        if tuning.probe is not None:
            tuning.probe(call.name, canvas_entropy(query, key, pooled=pooled, **options))
        return query, key

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


def band_mode(
    comm: Comm | AxisComms,
    bands: Sequence[Band],
    *,
    mesh: Mesh | None = None,
    marks: Sequence[Marks] = (),
    canvas: Canvas | None = None,
    tuning: AttentionModifier | None = None,
    always: bool = False,
) -> AbstractContextManager[Any]:
    """A `BandMode`; nothing at all where one rank holds the canvas and there is no `tuning`.

    `always` enters it there too.
    """
    if len(bands) == 1 and tuning is None and not always:
        return nullcontext()
    return BandMode(comm, bands, mesh=mesh, marks=marks, canvas=canvas, tuning=tuning)


def _stacked(bands: Sequence[Band], num_ranks: int) -> tuple[Band, ...]:
    """The bands, if there is one for each rank and they stack from row 0 without a gap."""
    joined = all(upper.stop == lower.start for upper, lower in pairwise(bands))
    if len(bands) != num_ranks or bands[0].start or not joined or not all(b.rows for b in bands):
        raise BandError(
            f"{num_ranks} ranks need {num_ranks} bands that stack from row 0 without gaps, each of "
            f"at least 1 row; got {[(b.start, b.stop) for b in bands]}"
        )
    return tuple(bands)


def _is_open(mask: Tensor | None) -> bool:
    """Does this mask let every query see every key? One without values is taken to."""
    if mask is None or mask.is_meta:
        return True
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())
