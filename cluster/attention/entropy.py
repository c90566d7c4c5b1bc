"""How evenly attention over a canvas is spread: its exact mean entropy, on any number of ranks.

Of a row of logits s with log-sum-exp lse the entropy is H = lse - E[s], and E[s] is an inner
product with attention whose values are the keys, so rows are never held.  UltraImage (arXiv
2512.04504, equation 10) takes the mean over all queries; its released code takes the entropy of
blocks: `pooled`.

Shape suffixes: B batch, H heads, S tokens, K key tokens, D head dim, Q and M blocks of queries and
of keys.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels import decay as decaying
from frieze.kernels.attention import AttentionPartial, attend, mean_logit
from frieze.kernels.decay import Decay, Frames
from frieze.kernels.reference import finite

from ..comm import AxisComms, Comm
from ..layout import TokenGrid
from .pooled_attention import pooled_mean_logits
from .pooled_context import PooledContext
from .sequence_parallel import Context, TokenLayout, fading


@dataclass(frozen=True)
class _Asker:
    """Queries of one kind, image or text, and how they ask keys; all of one attention."""

    q_BHSD: Tensor
    scale: float | None

    def mean_logit(self, k: Tensor, frames: Frames | None = None) -> AttentionPartial:
        """E[s] over these keys as `out` [B, H, S, 1]; float64, for lse - E[s] cancels digits."""
        if frames is not None:
            partial = decaying.mean_logit(self.q_BHSD, k, frames, scale=self.scale)
            return AttentionPartial(partial.out_BHSD.double(), partial.lse_BHS.double())
        mean_key = attend(self.q_BHSD, k, k, scale=self.scale)
        mean_BHS = mean_logit(self.q_BHSD, mean_key, scale=self.scale)
        return AttentionPartial(mean_BHS.double()[..., None], mean_key.lse_BHS.double())

    def attend(self, k: Tensor, v: Tensor, frames: Frames | None = None) -> AttentionPartial:
        if frames is not None:
            return decaying.attend(self.q_BHSD, k, v, frames, scale=self.scale)
        return attend(self.q_BHSD, k, v, scale=self.scale)


@dataclass(frozen=True)
class _Rows:
    """The rows of one attention as its ranks hold them: of text by all, of the image by one."""

    text: _Asker
    image: _Asker  # after tokens were traded for heads
    k_text: Tensor
    k: Tensor  # this rank's own image keys, all heads
    spread: TokenLayout
    fades: Sequence[Frames] | None

    def visits(self, visit: Callable[[Tensor, int, Frames | None], None]) -> None:
        """visit(keys, ring rank, what decays) of the image keys of every ring rank."""

        def each(k: Tensor, source: int) -> None:
            visit(k, source, None if self.fades is None else self.fades[source])

        self.spread.around(self.spread.to_heads(self.k), each)

    def image_partial(self) -> AttentionPartial:
        """lse and E[s] of this rank's image queries and heads."""
        partials: list[AttentionPartial] = []

        def visit(k: Tensor, source: int, frames: Frames | None) -> None:
            found = self.image.mean_logit(k, frames)
            partials[:] = [partials[0] + found] if partials else [found]

        self.visits(visit)
        if not self.k_text.shape[2]:
            return partials[0]
        return partials[0] + self.image.mean_logit(self.k_text[:, self.spread.mine])

    def text_partial(self) -> AttentionPartial:
        """The same of the text, all heads: the same bits on every rank."""
        own = self.text.mean_logit(self.k)
        packed = self.spread.comms.world.all_gather(_packed(own))
        partials = [AttentionPartial(x[..., :1], x[..., 1]) for x in packed]
        return functools.reduce(operator.add, [*partials, self.text.mean_logit(self.k_text)])


def canvas_entropy(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    *,
    comms: AxisComms,
    tokens: Sequence[int],
    scale: float | None = None,
    context: Context | None = None,
    pooled: int | None = None,
    decay: Decay | None = None,
    num_frames: int = 1,
) -> Tensor:
    """Mean entropy, in nats, of the rows of `canvas_attention`: entropy_BH, float64.

    The mean is over every query once: the image of all ranks, and the text.  Sums are float64 and
    merged in rank order, so every rank that has the same text returns the same bits.  Arguments
    are those of `canvas_attention`; nothing larger than they are is held.
    With `pooled` tokens to a side, the mean entropy of the blocks of the whole canvas's sequence in
    raster order (of `num_frames` frames, text at its side of it): of the mean of a block's rows,
    its keys summed by block.  The last block may be shorter; nothing is padded.
    ValueError if the tokens do not add up or `pooled` is less than 1.
    """
    if pooled is not None and pooled < 1:
        raise ValueError(f"entropy of blocks of {pooled} tokens; want at least 1")
    context = Context(0) if context is None else context
    spread = TokenLayout.of(q_BHSD, comms, tokens, context, num_frames)
    (q_text, q), (k_text, k) = (context.split(x) for x in (q_BHSD, k_BHSD))
    q = spread.to_heads(q)
    fades = None if decay is None else fading(q, spread, decay)
    rows = _Rows(_Asker(q_text, scale), _Asker(q, scale), k_text, k, spread, fades)
    if pooled is None:
        return _mean_entropy(rows, rows.image_partial())
    return _block_entropy(rows, _Blocks.of(spread, context, pooled))


def pooled_entropy(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    pooled: PooledContext,
    scale: float | None = None,
    context: Context | None = None,
) -> Tensor:
    """The same of pooled context, where a block of n tokens is n keys of one weight; entropy_BH.

    So H = -sum p (log p - log n), which nears `canvas_entropy` as its cost does the windows'.
    """
    context = Context(0) if context is None else context
    spread = TokenLayout.of(q_BHSD, comms, grid.tokens, context, grid.frames)
    (q_text, q_image), (k_text, k) = (context.split(x) for x in (q_BHSD, k_BHSD))
    rows = _Rows(_Asker(q_text, scale), _Asker(q_image, scale), k_text, k, spread, None)

    def ask(q: Tensor, keys: Sequence[Tensor]) -> AttentionPartial:
        return _Asker(q, scale).mean_logit(keys[0])

    found = pooled_mean_logits(q_image, k, k_text, comms=comms, grid=grid, pooled=pooled, ask=ask)
    flat = AttentionPartial(found.out_BHSD.flatten(2, 4), found.lse_BHS.flatten(2, 4))
    return _mean_entropy(rows, flat)


def _mean_entropy(rows: _Rows, image: AttentionPartial) -> Tensor:
    """The mean over all queries; `image` are those of this rank and its heads."""
    spread, text = rows.spread, rows.text.q_BHSD
    total_BH = torch.zeros(text.shape[:2], dtype=torch.float64, device=text.device)
    total_BH[:, spread.mine] = _entropies(image).sum(-1)
    total_BH = _summed(total_BH, spread.comms.world)
    if text.shape[2]:
        total_BH = total_BH + _entropies(rows.text_partial()).sum(-1)
    return total_BH / (sum(spread.tokens) + text.shape[2])


def _entropies(partial: AttentionPartial) -> Tensor:
    """H = lse - E[s] of every query."""
    return partial.lse_BHS - partial.out_BHSD[..., 0]


def _packed(partial: AttentionPartial) -> Tensor:
    return torch.cat((partial.out_BHSD, partial.lse_BHS[..., None]), dim=-1)


def _summed(x: Tensor, world: Comm) -> Tensor:
    """The sum over all ranks in rank order, held once and added to in place."""
    first, *others = world.all_gather(x)
    total = first.clone()
    for other in others:
        total += other
    return total


@dataclass(frozen=True)
class _Blocks:
    """Blocks of `side` tokens of the whole joint sequence, and the block of every token here."""

    side: int
    total: int
    text_S: Tensor
    of_rank_S: Tensor  # of this rank's own image tokens
    of_groups: Sequence[Tensor]  # of those of every ring rank, after `to_heads`

    @staticmethod
    def of(spread: TokenLayout, context: Context, side: int) -> _Blocks:
        num_text, num_image = context.num_tokens, sum(spread.tokens)
        text_start, start = (0, num_text) if context.side == "front" else (num_image, 0)
        return _Blocks(
            side,
            num_text + num_image,
            (text_start + torch.arange(num_text)) // side,
            (start + spread.raster()[spread.comms.world.rank]) // side,
            [(start + places) // side for places in spread.raster_of_groups()],
        )

    @property
    def num_blocks(self) -> int:
        return -(-self.total // self.side)

    def num_tokens(self) -> Tensor:
        """Tokens of each block: `side`, but for the last."""
        edges = torch.arange(self.num_blocks + 1) * self.side
        return edges.clamp(max=self.total).diff()


def _block_entropy(rows: _Rows, blocks: _Blocks) -> Tensor:
    """Each rank adds the mass between its own queries and the keys it meets; then all add up."""
    spread, world = rows.spread, rows.spread.comms.world
    text, image = rows.text.q_BHSD, rows.image
    m = blocks.num_blocks
    mass_BHQM = torch.zeros((*text.shape[:2], m, m), dtype=torch.float64, device=text.device)
    mine_BHQM = mass_BHQM[:, spread.mine]
    lse_BHS = rows.image_partial().lse_BHS
    q_blocks = blocks.of_groups[spread.comms.ring.rank]

    def visit(k: Tensor, source: int, frames: Frames | None) -> None:
        _add_mass(mine_BHQM, image, k, lse_BHS, q_blocks, blocks.of_groups[source], frames)

    rows.visits(visit)
    if text.shape[2]:
        k_text, text_S = rows.k_text, blocks.text_S
        _add_mass(mine_BHQM, image, k_text[:, spread.mine], lse_BHS, q_blocks, text_S)
        text_lse_BHS = rows.text_partial().lse_BHS
        _add_mass(mass_BHQM, rows.text, rows.k, text_lse_BHS, text_S, blocks.of_rank_S)
        if world.rank == 0:
            _add_mass(mass_BHQM, rows.text, k_text, text_lse_BHS, text_S, text_S)
    mass_BHQM = _summed(mass_BHQM, world)
    share_BHQM = mass_BHQM / blocks.num_tokens().to(mass_BHQM.device)[:, None]
    return -torch.xlogy(share_BHQM, share_BHQM).sum(-1).mean(-1)


def _add_mass(
    mass_BHQM: Tensor,
    asker: _Asker,
    k_BHKD: Tensor,
    lse_BHS: Tensor,
    q_block_S: Tensor,
    k_block_K: Tensor,
    frames: Frames | None = None,
) -> None:
    """Adds what blocks of queries give to blocks of keys, of rows whose log-sum-exp is known.

    Attention whose values are one-hot in the key's block, D blocks at a time, so that values are
    no wider than keys and every backend takes them.
    """
    width = k_BHKD.shape[3]
    for first in range(int(k_block_K.min()), int(k_block_K.max()) + 1, width):
        chosen = ((first <= k_block_K) & (k_block_K < first + width)).nonzero()[:, 0]
        if not len(chosen):
            continue
        hot = F.one_hot(k_block_K[chosen] - first, width).to(k_BHKD.device, k_BHKD.dtype)
        chosen = chosen.to(k_BHKD.device)
        k = k_BHKD[:, :, chosen]
        part = None if frames is None else replace(frames, k_K=frames.k_K[chosen])
        partial = asker.attend(k, hot.expand(*k.shape[:2], -1, -1), part)
        weight_BHS = (partial.lse_BHS - finite(lse_BHS)).exp()
        until = min(first + width, mass_BHQM.shape[3])
        for block, span in _runs(q_block_S):
            out = weight_BHS[:, :, span, None] * partial.out_BHSD[:, :, span, : until - first]
            mass_BHQM[:, :, block, first:until] += out.sum(2, dtype=torch.float64)


def _runs(block_S: Tensor) -> list[tuple[int, slice]]:
    """(block, its tokens) of every run of tokens of one block."""
    found, counts = torch.unique_consecutive(block_S, return_counts=True)
    edges = [0, *counts.cumsum(0).tolist()]
    return [(b, slice(*edges[i : i + 2])) for i, b in enumerate(found.tolist())]
