"""Exact attention over a canvas whose tokens lie on many ranks: Ulysses x ring over partials.

Canvas rank c = ring * U + ulysses holds the c-th run of image tokens, counted from the top.
Within a Ulysses group ranks trade tokens for heads (Jacobs et al. 2023, arXiv 2309.14509); around
the ring keys and values travel past the queries (Liu et al. 2023, arXiv 2310.01889).  Text tokens
of joint attention are on every rank and are joined exactly once.

Shape suffixes: B batch, H heads, S tokens, D head dim.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from frieze.kernels import decay as decaying
from frieze.kernels.attention import AttentionPartial, attend
from frieze.kernels.decay import Decay, Frames

from ..comm import AxisComms, Comm, Like, solo
from .regions import Regions


@dataclass(frozen=True)
class Context:
    """Text tokens that every rank holds, before (`front`) or after (`rear`) its image tokens.

    Where `regions` have prompts of their own, `runs` are the tokens of each one's text; what the
    context has more, before them, is every prompt's. `alone`: there are no image tokens beside it.
    """

    num_tokens: int
    side: Literal["front", "rear"] = "front"
    runs: tuple[int, ...] = ()
    regions: Regions | None = None
    alone: bool = False

    def split(self, x_BHSD: Tensor) -> tuple[Tensor, Tensor]:
        """(text, image) tokens of a joint sequence."""
        num_image = x_BHSD.shape[2] - self.num_tokens
        if self.side == "front":
            text, image = x_BHSD.split([self.num_tokens, num_image], dim=2)
        else:
            image, text = x_BHSD.split([num_image, self.num_tokens], dim=2)
        return text, image

    def join(self, text_BHSD: Tensor, image_BHSD: Tensor) -> Tensor:
        """The joint sequence: the inverse of `split`."""
        parts = (text_BHSD, image_BHSD) if self.side == "front" else (image_BHSD, text_BHSD)
        return torch.cat(parts, dim=2)

    def of_prompt(self, index: int) -> Context:
        """The context of one prompt's text alone."""
        num_others = sum(self.runs) - self.runs[index]
        return Context(self.num_tokens - num_others, self.side)

    def only(self, index: int, x_BHSD: Tensor) -> Tensor:
        """The joint sequence without the texts of other prompts."""
        text, image = self.split(x_BHSD)
        parts = text.split([self.num_tokens - sum(self.runs), *self.runs], dim=2)
        return self.join(torch.cat((parts[0], parts[1 + index]), dim=2), image)


@dataclass(frozen=True)
class TokenLayout:
    """How one attention lies on the ranks: the image tokens of each, the heads within a group.

    Every rank's image tokens are `num_frames` frames of its own rows, frame by frame.
    """

    comms: AxisComms
    tokens: tuple[int, ...]
    heads: tuple[slice, ...]
    num_frames: int = 1

    @staticmethod
    def of(
        q_BHSD: Tensor,
        comms: AxisComms,
        tokens: Sequence[int],
        context: Context,
        num_frames: int = 1,
    ) -> TokenLayout:
        """ValueError if the tokens do not add up."""
        num_image = q_BHSD.shape[2] - context.num_tokens
        if len(tokens) != comms.world.size or tokens[comms.world.rank] != num_image:
            raise ValueError(
                f"{num_image} image and {context.num_tokens} text tokens on rank "
                f"{comms.world.rank}, but the ranks hold {list(tokens)} image tokens"
            )
        if any(count % num_frames for count in tokens):
            raise ValueError(
                f"ranks of {list(tokens)} image tokens do not hold {num_frames} frames"
            )
        if q_BHSD.shape[1] < comms.ulysses.size:  # too few heads to trade: all on one ring
            comms = AxisComms(comms.world, ring=comms.world, ulysses=solo())
        heads = _spans(_shares(q_BHSD.shape[1], comms.ulysses.size))
        return TokenLayout(comms, tuple(tokens), tuple(heads), num_frames)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Image tokens of each rank of every Ulysses group around the ring."""
        step = self.comms.ulysses.size
        return [self.tokens[i : i + step] for i in range(0, len(self.tokens), step)]

    @property
    def group(self) -> tuple[int, ...]:
        """Those of this rank's Ulysses group."""
        return self.groups[self.comms.ring.rank]

    @property
    def mine(self) -> slice:
        """The heads this rank computes."""
        return self.heads[self.comms.ulysses.rank]

    def to_heads(self, x_BHSD: Tensor) -> Tensor:
        """From this rank's tokens with all heads to the group's tokens with this rank's heads."""
        return _tokens_to_heads(x_BHSD, self.comms.ulysses, self.heads, self.group)

    def to_tokens(self, x_BHSD: Tensor) -> Tensor:
        """The way back."""
        return _heads_to_tokens(x_BHSD, self.comms.ulysses, self.heads, self.group)

    def around(self, block: Tensor, visit: Callable[[Tensor, int], None]) -> None:
        """visit(block, r) of every ring rank r's block [.., .., tokens, ..], this rank's first.

        The next block travels while the present one is computed on; there are never more than two.
        """
        ring = self.comms.ring
        for hop in range(ring.size):
            source = (ring.rank - hop) % ring.size
            travelling = None
            if hop + 1 < ring.size:
                arriving = sum(self.groups[source - 1])
                travelling = ring.ring_pass(block, Like.of(block).with_size(2, arriving))
            visit(block, source)
            if travelling is not None:
                block = travelling.only()

    def raster(self) -> list[Tensor]:
        """Places of each rank's image tokens in the raster of the whole canvas, frame by frame."""
        per_frame = sum(self.tokens) // self.num_frames
        first = torch.arange(self.num_frames)[:, None] * per_frame
        spans = _spans([count // self.num_frames for count in self.tokens])
        return [(first + torch.arange(span.start, span.stop)).flatten() for span in spans]

    def raster_of_groups(self) -> list[Tensor]:
        """The same of the tokens that each ring rank holds after `to_heads`."""
        ranks, step = self.raster(), self.comms.ulysses.size
        return [torch.cat(ranks[i : i + step]) for i in range(0, len(ranks), step)]

    def frames_of_groups(self, device: torch.device) -> list[Tensor]:
        """The frame of every one of those tokens."""
        per_frame = sum(self.tokens) // self.num_frames
        return [(places // per_frame).int().to(device) for places in self.raster_of_groups()]


def canvas_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    tokens: Sequence[int],
    scale: float | None = None,
    context: Context | None = None,
    decay: Decay | None = None,
    num_frames: int = 1,
) -> Tensor:
    """softmax(scale q k^T) v over the keys of the whole canvas, for this rank's queries.

    q, k, v are [B, H, S, D] with S = this rank's entry of `tokens` (image tokens of every canvas
    rank) plus the context's tokens.  `scale` defaults to D ** -0.5.  Merges are float32 or wider;
    the result has q's dtype.  Text rows have the same bits on every rank that has the same text.
    With `decay` logits between image tokens decay over `num_frames` frames; text is exempt.
    ValueError if the tokens do not add up.
    """
    context = Context(0) if context is None else context
    spread = TokenLayout.of(q_BHSD, comms, tokens, context, num_frames)
    (q_text, q), (k_text, k), (v_text, v) = (context.split(x) for x in (q_BHSD, k_BHSD, v_BHSD))
    image = _image_rows(q, k, v, k_text, v_text, spread, scale, decay)
    if not context.num_tokens:
        return image
    text = text_rows(q_text, k, v, k_text, v_text, comms.world, scale)
    return context.join(text.to(q.dtype), image)


def text_rows(
    q_text: Tensor,
    k: Tensor,
    v: Tensor,
    k_text: Tensor,
    v_text: Tensor,
    world: Comm,
    scale: float | None,
) -> Tensor:
    """Every rank lets the text ask its own image keys; all add up the answers in rank order."""
    of_image = of_all_ranks(q_text, k, v, world, scale)
    return (of_image + attend(q_text, k_text, v_text, scale=scale)).out_BHSD


def of_all_ranks(
    q_text: Tensor, k: Tensor, v: Tensor, world: Comm, scale: float | None
) -> AttentionPartial:
    """Attention over all ranks' keys, of queries that all ranks hold; the same bits on each."""
    own = attend(q_text, k, v, scale=scale)
    packed = torch.cat((own.out_BHSD.to(own.lse_BHS.dtype), own.lse_BHS[..., None]), dim=-1)
    partials = [AttentionPartial(x[..., :-1], x[..., -1]) for x in world.all_gather(packed)]
    return functools.reduce(operator.add, partials)


def _image_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_text: Tensor,
    v_text: Tensor,
    spread: TokenLayout,
    scale: float | None,
    decay: Decay | None,
) -> Tensor:
    """Tokens are traded for heads, keys go around the ring, text keys join last; then back."""
    dtype = q.dtype
    q = spread.to_heads(q)
    partial = around_the_ring(q, k, v, spread, scale, decay)
    if k_text.shape[2]:
        k_text, v_text = k_text[:, spread.mine], v_text[:, spread.mine]
        partial = partial + attend(q, k_text, v_text, scale=scale)
    return spread.to_tokens(partial.out_BHSD.to(dtype))


def around_the_ring(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spread: TokenLayout,
    scale: float | None,
    decay: Decay | None,
) -> AttentionPartial:
    """Attention over the image keys of the canvas, of queries after `to_heads`."""
    fades = None if decay is None else fading(q, spread, decay)
    partials: list[AttentionPartial] = []

    def visit(kv: Tensor, source: int) -> None:
        k, v = kv.chunk(2)
        if fades is None:
            found = attend(q, k, v, scale=scale)
        else:
            found = decaying.attend(q, k, v, fades[source], scale=scale)
        partials[:] = [partials[0] + found] if partials else [found]

    # Keys and values are stacked along the batch; nobody else holds the stack.
    spread.around(spread.to_heads(torch.cat((k, v))), visit)
    return partials[0]


def fading(q: Tensor, spread: TokenLayout, decay: Decay) -> list[Frames]:
    """What decays between this rank's queries, after `to_heads`, and each ring rank's keys."""
    frames = spread.frames_of_groups(q.device)
    factor_F = decay.factors(spread.num_frames).to(q.device)
    return [Frames(factor_F, frames[spread.comms.ring.rank], keys) for keys in frames]


def _tokens_to_heads(
    x: Tensor, ulysses: Comm, heads: Sequence[slice], tokens: Sequence[int]
) -> Tensor:
    """From this rank's tokens with all heads to the group's tokens with this rank's heads."""
    if ulysses.size == 1:
        return x
    mine = heads[ulysses.rank]
    like = Like.of(x).with_size(1, mine.stop - mine.start)
    parts = ulysses.all_to_all([x[:, h] for h in heads], [like.with_size(2, n) for n in tokens])
    return torch.cat(parts, dim=2)


def _heads_to_tokens(
    x: Tensor, ulysses: Comm, heads: Sequence[slice], tokens: Sequence[int]
) -> Tensor:
    """The way back."""
    if ulysses.size == 1:
        return x
    like = Like.of(x).with_size(2, tokens[ulysses.rank])
    parts = ulysses.all_to_all(
        [x[:, :, s] for s in _spans(tokens)],
        [like.with_size(1, h.stop - h.start) for h in heads],
    )
    return torch.cat(parts, dim=1)


def _shares(total: int, parts: int) -> list[int]:
    """`total` in whole shares that differ by at most one, larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def _spans(sizes: Sequence[int]) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(accumulate(sizes, initial=0))]
