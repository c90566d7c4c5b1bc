"""Which tokens of the canvas a layer of attention has, or a refusal that says what is not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..layout import LayoutError, TokenGrid
from .layer_marks import Call
from .tensor_shapes import CanvasShapes, refusal


@dataclass(frozen=True)
class LayerTokens:
    """The tokens of layers on this band of the canvas, from the shapes of their queries."""

    canvas: CanvasShapes

    def grid(self, function: Any, query: Tensor, call: Call) -> TokenGrid:
        """Rows and columns of this layer's tokens."""
        is_joined = call.context is not None and not call.marks.local
        num_text = call.context.num_tokens if call.context and is_joined else 0
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

    def num_frames(self, function: Any, query: Tensor, call: Call) -> int:
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

    def counts(
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

    def check_unmarked(self, function: Any, query: Tensor, key: Tensor) -> None:
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


def check_reach(
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
