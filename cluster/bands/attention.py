"""What one attention of a marked layer is on a band: over the canvas, in windows, or as it stands.

Shape suffixes: B batch, H heads, S tokens, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

from torch import Tensor

from frieze.kernels.decay import Decay

from ..attention import (
    AttentionChange,
    AttentionModifier,
    AttentionShape,
    Context,
    KeyTurns,
    Regions,
    canvas_attention,
    canvas_entropy,
    fused_features,
    pooled_entropy,
    prompt_by_prompt,
    regional_attention,
    regional_cross_attention,
    regional_text_attention,
    shaped_attention,
    turned_attention,
)
from ..comm import AxisComms
from .layer_marks import Call, innermost
from .layer_tokens import LayerTokens, check_reach
from .tensor_shapes import CanvasShapes, refusal


class BandAttention:
    """`scaled_dot_product_attention` of this rank's band, inside one mode.

    `is_whole`: one rank holds all of the canvas' tokens.
    """

    def __init__(
        self,
        comms: AxisComms,
        canvas: CanvasShapes,
        modifier: AttentionModifier | None,
        *,
        is_whole: bool,
    ) -> None:
        self.comms, self.comm, self.tokens = comms, comms.world, LayerTokens(canvas)
        self.modifier, self.is_whole = modifier, is_whole

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
        call = innermost()
        if call is None or call.marks.local:
            if call is None:
                self.tokens.check_unmarked(function, query, key)
            rest = (attn_mask, dropout_p, is_causal)
            if call is not None and _regions(call) is not None:
                check_reach(function, query, call, *rest)
                return self._of_texts(function, (query, key, value), call, scale)
            return function(query, key, value, *rest, scale=scale, enable_gqa=enable_gqa)
        call.num_attentions += 1
        check_reach(function, query, call, attn_mask, dropout_p, is_causal)
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
        change = AttentionChange(query, key)
        if self.modifier is not None:
            change = self.modifier.change(call.name, query, key)
        query, key, scale = change.q_BHSD, change.k_BHSD, change.scaled(scale)
        shape = self._shape(function, (query, key, value), call, change)
        if change.probe is not None:
            change.probe(self._entropy(function, query, key, call, change, shape, scale))
        if shape is not None:
            return self._shaped(function, (query, key, value), call, shape, scale)
        if change.turns is not None:
            return self._turned(function, (query, key, value), call, change.turns, scale)
        if _regions(call) is not None:
            return self._by_region(function, (query, key, value), call, change, scale)
        if self.is_whole and change.keeps_logits:  # all tokens are here
            return function(query, key, value, attn_mask, scale=scale)
        place = self._place(function, (query, key, value), call, change)
        return canvas_attention(query, key, value, scale=scale, **place)

    def _shape(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        change: AttentionChange,
    ) -> AttentionShape | None:
        """What the image's queries ask; None for the canvas."""
        if change.shape is None:
            return None
        self.tokens.counts(function, qkv, call)
        grid = self.tokens.grid(function, qkv[0], call)
        shape = change.shape(grid.rows, grid.columns)
        if shape is not None and change.decay is not None:
            raise refusal(function, qkv, "decay is of the canvas, not of windows")
        return shape

    def _entropy(
        self,
        function: Any,
        query: Tensor,
        key: Tensor,
        call: Call,
        change: AttentionChange,
        shape: AttentionShape | None,
        scale: float | None,
    ) -> Tensor:
        """Of the canvas, through what is pooled of it; of the first prompt, if there are several.

        Windows alone would cut it off by their size; blocks of tokens are of the whole canvas.
        """
        q, k, alone = _of_first_prompt(query, key, call)
        if shape is not None and shape.pooled is not None and change.pooled is None:
            self.tokens.counts(function, (q, k, k), alone)
            grid = self.tokens.grid(function, q, alone)
            return pooled_entropy(
                *(q, k),
                comms=self.comms,
                grid=grid,
                pooled=shape.pooled,
                scale=scale,
                context=alone.context,
            )
        place = self._place(function, (q, k, k), alone, change)
        return canvas_entropy(q, k, pooled=change.pooled, scale=scale, **place)

    def _shaped(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        shape: AttentionShape,
        scale: float | None,
    ) -> Tensor:
        """Attention in windows, with the canvas or without."""
        grid = self.tokens.grid(function, qkv[0], call)
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
        asked = partial(shaped_attention, comms=self.comms, grid=grid, shape=shape, scale=scale)
        if (regions := _regions(call)) is None:
            return asked(*qkv, context=call.context)
        assert call.context is not None
        return prompt_by_prompt(
            asked,
            qkv,
            context=call.context,
            share_PS=regions.of_band(grid, self.comm.rank, qkv[0]),
            share_P=regions.means(qkv[0]),
        )

    def _turned(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        turns: KeyTurns,
        scale: float | None,
    ) -> Tensor:
        """Attention over the canvas whose keys stand elsewhere for each tile of queries."""
        if _regions(call) is not None:
            raise refusal(function, qkv, "regions ask their texts of keys that stand as they are")
        self.tokens.counts(function, qkv, call)
        grid = self.tokens.grid(function, qkv[0], call)
        return turned_attention(
            *qkv, comms=self.comms, grid=grid, turns=turns, scale=scale, context=call.context
        )

    def _by_region(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        change: AttentionChange,
        scale: float | None,
    ) -> Tensor:
        """Attention over the canvas whose parts ask the texts of different prompts."""
        assert call.context is not None
        self.tokens.counts(function, qkv, call)
        grid = self.tokens.grid(function, qkv[0], call)
        return regional_attention(
            *qkv,
            comms=self.comms,
            grid=grid,
            context=call.context,
            scale=scale,
            decay=change.decay,
        )

    def _of_texts(
        self,
        function: Any,
        qkv: tuple[Tensor, Tensor, Tensor],
        call: Call,
        scale: float | None,
    ) -> Tensor:
        """A local layer that asks texts of different prompts: of each place, or each its own."""
        context = call.context
        assert context is not None
        assert context.regions is not None
        if context.alone:
            return regional_text_attention(*qkv, runs=context.runs, scale=scale)
        grid = self.tokens.grid(function, qkv[0], call)
        share_PS = context.regions.of_band(grid, self.comm.rank, qkv[0])
        return regional_cross_attention(*qkv, share_PS=share_PS, runs=context.runs, scale=scale)

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
            "tokens": self.tokens.counts(function, qkv, call),
            "context": call.context,
            "decay": change.decay,
            "num_frames": self.tokens.num_frames(function, qkv[0], call) if by_frame else 1,
        }


class _Place(TypedDict):
    """Where the tokens of one attention lie on the canvas, as `canvas_attention` takes it."""

    comms: AxisComms
    tokens: Sequence[int]
    context: Context | None
    decay: Decay | None
    num_frames: int


def _regions(call: Call) -> Regions | None:
    """The regions that ask different texts in this layer."""
    return None if call.context is None else call.context.regions


def _of_first_prompt(q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor, Call]:
    """Queries and keys without the texts of all prompts but the first, where there are several."""
    context = call.context
    if context is None or context.regions is None:
        return q, k, call
    return context.only(0, q), context.only(0, k), replace(call, context=context.of_prompt(0))
