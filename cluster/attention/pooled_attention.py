"""Exact attention over pooled context on many ranks: a window in full, the rest by its means.

A block of n tokens counts as n keys that are their mean: its logit plus log n, its value theirs.
So attention over window and text, and over blocks of n tokens with log n on their log-sum-exp, add
up without a mask.  Each query has at most two windows' worth of keys, however large the canvas is:
attention is linear in its tokens.  A band hands on the means of its blocks, of those that it
shares with others their sums, and borrows rows where the cut is within a window.  A window spans
all frames, and blocks one: neighbouring frames are as far apart as they were in training.

Shape suffixes: B batch, H heads, S tokens, T frames, R rows, C columns, D head dim, M blocks.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from frieze.kernels.attention import AttentionPartial, attend
from frieze.kernels.reference import wide

from ..comm import AxisComms, Comm, Like, select
from ..layout import Band, TokenGrid
from .pooled_context import PooledContext, PooledStack, straddling
from .windowed_attention import STACKED_QUERIES, Grids

# (queries, what there is of the keys: themselves, and their values) -> attention over them.
Ask = Callable[[Tensor, Sequence[Tensor]], AttentionPartial]


def pooled_context_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    pooled: PooledContext,
    scale: float | None = None,
    text: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """This rank's image tokens' attention over their windows, text, and the rest in blocks.

    Arguments as in `window_attention`.  Merges are float32 or wider; the result has q's dtype.
    """

    def ask(q: Tensor, kv: Sequence[Tensor]) -> AttentionPartial:
        return attend(q, kv[0], kv[1], scale=scale)

    place = Grids.of(q_BHSD, comms, grid)
    found = pooled_partial(q_BHSD, (k_BHSD, v_BHSD), text, place=place, pooled=pooled, ask=ask)
    return place.to_tokens(found.out_BHSD.to(q_BHSD.dtype))


def pooled_mean_logits(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    k_text: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    pooled: PooledContext,
    ask: Ask,
) -> AttentionPartial:
    """Mean logits, as `ask` has them, and log-sum-exps of this rank's image queries and heads.

    `out` is [B, H, T, R, C, 1].  As n keys of one weight, a block's mean logit is its own, without
    log n; so the entropy is the log-sum-exp less this.
    """
    text = (k_text,) if k_text.shape[2] else None
    place = Grids.of(q_BHSD, comms, grid)
    return pooled_partial(q_BHSD, (k_BHSD,), text, place=place, pooled=pooled, ask=ask)


def pooled_partial(
    q_BHSD: Tensor,
    kv_BHSD: Sequence[Tensor],
    text: Sequence[Tensor] | None,
    *,
    place: Grids,
    pooled: PooledContext,
    ask: Ask,
) -> AttentionPartial:
    """What `ask` finds for the image queries of this rank's Ulysses group, [B, H, T, R, C, ...]."""
    # Keys and values are stacked along the batch; nobody else holds the stack.
    kv = place.of_tokens(torch.cat(list(kv_BHSD)))
    ring = place.layout.comms.ring
    means = _block_means(kv, ring, place.bands, pooled).chunk(len(kv_BHSD))
    asker = _Asker(place, place.of_tokens(q_BHSD), _of_heads(text, place), means, pooled, ask)
    for row, part in enumerate(pooled.windows.exchanges(place.height)):
        wanted = [part.rows_needed(band, place.height) for band in place.bands]
        rows = ring.gather_rows(kv, place.bands, wanted, dim=3)
        if wanted[ring.rank]:
            asker.visit(row, rows)
    return asker.found()


def _of_heads(text: Sequence[Tensor] | None, place: Grids) -> Sequence[Tensor] | None:
    return None if text is None else [x[:, place.layout.mine] for x in text]


class _Asker:
    """Lets the queries of each window ask, and lays what they find where they lie."""

    def __init__(
        self,
        place: Grids,
        q: Tensor,
        text: Sequence[Tensor] | None,
        means: Sequence[Tensor],
        pooled: PooledContext,
        ask: Ask,
    ) -> None:
        self._place, self._q, self._text = place, q, text
        self._means, self._pooled, self._ask = means, pooled, ask
        self._out: Tensor | None = None
        self._lse = q.new_empty(q.shape[:-1], dtype=wide(q.dtype))

    def found(self) -> AttentionPartial:
        """Of all queries that there are."""
        out = self._q.new_empty(self._q.shape) if self._out is None else self._out
        return AttentionPartial(out, self._lse)

    def visit(self, row: int, kv: Tensor) -> None:
        """A row of windows; `kv` are the keys and values of its rows of the canvas."""
        dim, own = self._pooled.rows, self._place.own
        tall = dim.tokens(dim.spans[row])
        start, stop = (min(max(at, own.start), own.stop) - own.start for at in (tall[0], tall.stop))
        if start == stop:
            return
        for stack in self._pooled.stacks(row, self._q.device):
            num_queries = self._q.shape[2] * (stop - start) * len(stack.columns[0])
            step = max(1, STACKED_QUERIES // num_queries)
            for first in range(0, len(stack.columns), step):
                several = slice(first, first + step)
                blocks = tuple(each[several] for each in stack.blocks)
                part = PooledStack(stack.columns[several], stack.sizes, blocks)
                self._visit(slice(start, stop), part, kv)

    def _visit(self, rows: slice, stack: PooledStack, kv: Tensor) -> None:
        """Windows stacked along the batch."""
        num = len(stack.columns)

        def stacked(x: Tensor) -> Tensor:
            parts = [x[..., c.start : c.stop, :] for c in stack.columns]
            return (torch.cat(parts) if num > 1 else parts[0]).flatten(2, 4)

        q = stacked(self._q[:, :, :, rows])
        keys = [stacked(half) for half in kv.chunk(len(self._means))]
        if self._text is not None:
            texts = [x.repeat(num, 1, 1, 1) if num > 1 else x for x in self._text]
            keys = [torch.cat(pair, dim=2) for pair in zip(keys, texts, strict=True)]
        partials = [self._ask(q, keys)]
        for size, blocks_NM in zip(stack.sizes, stack.blocks, strict=True):
            found = self._ask(q, [_of_blocks(x, blocks_NM) for x in self._means])
            partials.append(AttentionPartial(found.out_BHSD, found.lse_BHS + math.log(size)))
        self._keep(rows, stack.columns, functools.reduce(operator.add, partials))

    def _keep(self, rows: slice, columns: Sequence[range], found: AttentionPartial) -> None:
        num_rows = rows.stop - rows.start
        grid = (self._q.shape[2], num_rows, len(columns[0]))
        if self._out is None:
            out = found.out_BHSD
            dtype = self._q.dtype if out.dtype == wide(self._q.dtype) else out.dtype
            self._out = out.new_empty((*self._q.shape[:-1], out.shape[-1]), dtype=dtype)
            self._lse = self._lse.to(found.lse_BHS.dtype)
        outs, lses = (
            x.unflatten(2, grid).chunk(len(columns)) for x in (found.out_BHSD, found.lse_BHS)
        )
        for each, out, lse in zip(columns, outs, lses, strict=True):
            self._out[:, :, :, rows, each.start : each.stop] = out
            self._lse[:, :, :, rows, each.start : each.stop] = lse


def _of_blocks(means_BHTMD: Tensor, blocks_NM: Tensor) -> Tensor:
    """The blocks that each of N windows asks, stacked along the batch: [N B, H, T M, D]."""
    chosen = means_BHTMD.index_select(3, blocks_NM.flatten()).unflatten(3, blocks_NM.shape)
    return chosen.movedim(3, 0).flatten(0, 1).flatten(2, 3)


def _block_means(kv: Tensor, ring: Comm, bands: Sequence[Band], pooled: PooledContext) -> Tensor:
    """Keys' and values' means over the blocks of the canvas, [B, H, T, M, D], on every rank.

    Blocks within a band travel as means.  Of blocks that bands share the sums do, in float32 or
    wider, and are added up in rank order.
    """
    dim, own = pooled.rows, bands[ring.rank]
    touched = dim.touching(own)
    sums = _block_sums(kv, 4, pooled.columns.sizes)
    sums = _block_sums(sums, 3, [dim.overlap(block, own) for block in touched])
    size_RC1 = _sizes(pooled, sums)
    within = dim.within(own)
    inner = sums[:, :, :, within.start - touched.start : within.stop - touched.start]
    means = (inner / size_RC1[within.start : within.stop]).to(kv.dtype)
    found = dict(_gathered(ring, means, [dim.within(band) for band in bands]))
    shared = straddling(dim, bands)
    mine = select(sums, [block - touched.start for block in shared[ring.rank]], 3)
    totals: dict[int, Tensor] = {}
    for block, row in _gathered(ring, mine, shared):
        totals[block] = totals[block] + row if block in totals else row
    for block, total in totals.items():
        found[block] = (total / size_RC1[block]).to(kv.dtype)
    return torch.stack([found[block] for block in range(len(dim.sizes))], dim=3).flatten(3, 4)


def _gathered(
    ring: Comm, x: Tensor, blocks: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Tensor]]:
    """(block, its row of x, dim 3) of every rank's blocks, in rank order."""
    like, others = Like.of(x), [rank for rank in range(ring.size) if rank != ring.rank]
    parts = ring.exchange(
        {to: x for to in others if x.shape[3]},
        {source: like.with_size(3, len(blocks[source])) for source in others if blocks[source]},
    )
    parts = {**parts, ring.rank: x}
    for rank, numbers in enumerate(blocks):
        for place, block in enumerate(numbers):
            yield block, parts[rank][:, :, :, place]


def _block_sums(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Sums over runs of so many entries of a dim, in float32 or wider; the same bits always."""
    starts, order, parts = list(accumulate(sizes, initial=0)), list[int](), list[Tensor]()
    for size in sorted(set(sizes)):
        blocks = [block for block, each in enumerate(sizes) if each == size]
        entries = [entry for block in blocks for entry in range(starts[block], starts[block + 1])]
        runs = select(x, entries, dim).unflatten(dim, (len(blocks), size))
        parts.append(runs.sum(dim + 1, dtype=wide(x.dtype)))
        order += blocks
    if len(parts) == 1:
        return parts[0]
    return select(torch.cat(parts, dim), sorted(range(len(order)), key=order.__getitem__), dim)


def _sizes(pooled: PooledContext, like: Tensor) -> Tensor:
    """Tokens of every block, [rows, columns, 1]."""
    tall, broad = (
        torch.tensor(dim.sizes, dtype=like.dtype, device=like.device)
        for dim in (pooled.rows, pooled.columns)
    )
    return (tall[:, None] * broad)[..., None]
