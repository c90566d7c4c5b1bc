"""Exact attention in windows of a canvas that lies on many ranks: queries stay, keys come.

A rank asks with the tokens of its own rows alone, so nothing is computed twice and no answer
travels.  The key rows that its windows reach are known on every rank from integers.  Ulysses groups
trade tokens for heads first, as in `canvas_attention`; each group is then one band.

Shape suffixes: B batch, H heads, S tokens, T frames, R rows, C columns, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from frieze.kernels.attention import AttentionPartial, attend
from frieze.kernels.reference import wide

from ..comm import AxisComms, select
from ..layout import Band, TokenGrid
from .sequence_parallel import Context, TokenLayout
from .windows import Windows, add_at, own_rows

# Windows are stacked along the batch while they ask fewer queries than this together: small
# windows one by one leave a device idle, large ones gain nothing and are copied.
STACKED_QUERIES = 4096


def window_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    windows: Windows,
    scale: float | None = None,
    text: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Every image token's attention over the windows it lies in, averaged; this rank's tokens.

    q, k, v are [B, H, S, D] with S = frames x rows of this rank's band x columns of the `grid`,
    this layer's, frame by frame; a window spans all frames.
    `text`, (keys, values) [B, H, K, D] that all ranks hold, is seen by every query once.  `scale`
    defaults to D ** -0.5.  The mean is taken in float32 or wider; the result has q's dtype.
    LayoutError if a token lies in no window, ValueError if the tokens do not add up.
    """
    grids = Grids.of(q_BHSD, comms, grid)
    # Keys and values are stacked along the batch; nobody else holds the stack.
    kv = grids.of_tokens(torch.cat((k_BHSD, v_BHSD)))
    answers = _Answers(grids, grids.of_tokens(q_BHSD), scale, text)
    ring = grids.layout.comms.ring
    for part in windows.exchanges(grids.height):
        wanted = [part.rows_needed(band, grids.height) for band in grids.bands]
        rows = ring.gather_rows(kv, grids.bands, wanted, dim=3)
        answers.add(part, rows, wanted[ring.rank])
    return grids.to_tokens(answers.mean(windows).to(q_BHSD.dtype))


class Grids:
    """Tokens as frames of rows and columns: [B, H, T, R, C, D] of this rank's Ulysses group."""

    @staticmethod
    def of(q_BHSD: Tensor, comms: AxisComms, grid: TokenGrid) -> Grids:
        """Those of an attention's image tokens; ValueError if the tokens do not add up."""
        return Grids(TokenLayout.of(q_BHSD, comms, grid.tokens, Context(0), grid.frames), grid)

    def __init__(self, layout: TokenLayout, grid: TokenGrid) -> None:
        step, ring, bands = layout.comms.ulysses.size, layout.comms.ring, grid.bands
        groups = [bands[i : i + step] for i in range(0, len(bands), step)]
        self.layout, self.width = layout, grid.columns
        self.bands = [Band(group[0].start, group[-1].stop) for group in groups]
        self.own = self.bands[ring.rank]
        self.height = grid.rows
        self._rows = [band.rows for band in groups[ring.rank]]

    def of_tokens(self, x_BHSD: Tensor) -> Tensor:
        """The group's grid with this rank's heads; the group's tokens come rank by rank."""
        parts = self.layout.to_heads(x_BHSD).split(self.layout.group, dim=2)
        shapes = [(self.layout.num_frames, rows, self.width) for rows in self._rows]
        grids = [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat(grids, dim=3) if len(grids) > 1 else grids[0]

    def to_tokens(self, x: Tensor) -> Tensor:
        """The way back."""
        parts = [part.flatten(2, 4) for part in x.split(self._rows, dim=3)]
        return self.layout.to_tokens(torch.cat(parts, dim=2) if len(parts) > 1 else parts[0])


class _Answers:
    """What the windows answer this rank's queries, summed up."""

    def __init__(
        self, grids: Grids, q: Tensor, scale: float | None, text: tuple[Tensor, Tensor] | None
    ) -> None:
        self._grids, self._q, self._scale = grids, q, scale
        self._total = torch.zeros_like(q, dtype=wide(q.dtype))
        self._of_text = None if text is None else self._ask_text(*text)

    def _ask_text(self, k: Tensor, v: Tensor) -> AttentionPartial:
        """What text answers each query: the same in every window, so it is asked once."""
        mine, shape = self._grids.layout.mine, self._q.shape[2:5]
        found = attend(self._q.flatten(2, 4), k[:, mine], v[:, mine], scale=self._scale)
        return AttentionPartial(
            found.out_BHSD.unflatten(2, shape), found.lse_BHS.unflatten(2, shape)
        )

    def add(self, windows: Windows, rows: Tensor, at: Sequence[int]) -> None:
        """Adds what each window answers; `rows` are keys and values of the canvas rows `at`."""
        places = {row: place for place, row in enumerate(at)}
        for stack in windows.stacks(self._grids.height, self._grids.width):
            own = own_rows(stack.rows, self._grids.own)
            if not own:
                continue
            kv = select(rows, [places[row] for row in stack.rows], 3)
            num_queries = self._q.shape[2] * len(own) * len(stack.columns[0])
            step = max(1, STACKED_QUERIES // num_queries)
            for first in range(0, len(stack.columns), step):
                columns = stack.columns[first : first + step]
                self._add(own, columns, kv, stack.num_zeros)

    def _add(
        self, own: Sequence[int], columns: Sequence[Sequence[int]], kv: Tensor, num_zeros: int
    ) -> None:
        """Windows on the same rows, stacked along the batch."""

        def stacked(x: Tensor) -> Tensor:
            return torch.cat([select(x, each, 4) for each in columns])

        q = stacked(select(self._q, own, 3))
        k, v = (stacked(half).flatten(2, 4) for half in kv.chunk(2))
        found = attend(q.flatten(2, 4), k, v, scale=self._scale)
        if num_zeros:
            found = _beside_zeros(found, num_zeros * q.shape[2])
        if self._of_text is not None:
            out, lse = (
                stacked(select(x, own, 3)).flatten(2, 4)
                for x in (self._of_text.out_BHSD, self._of_text.lse_BHS)
            )
            found = found + AttentionPartial(out, lse)
        parts = found.out_BHSD.unflatten(2, q.shape[2:5]).chunk(len(columns))
        total = self._total.movedim(-1, 2)
        for each, part in zip(columns, parts, strict=True):
            add_at(total, own, each, part.movedim(-1, 2))

    def mean(self, windows: Windows) -> Tensor:
        """The sum over the number of windows that each token lies in."""
        grids = self._grids
        counts_RC = windows.counts(grids.own, grids.height, grids.width)
        return self._total / counts_RC.to(self._total.device)[..., None]


def _beside_zeros(found: AttentionPartial, num_zeros: int) -> AttentionPartial:
    """As if so many keys and values of zero had been asked too: logits of 0, nothing added."""
    lse_BHS = torch.logaddexp(found.lse_BHS, torch.full_like(found.lse_BHS, math.log(num_zeros)))
    weight_BHS = (found.lse_BHS - lse_BHS).exp()
    return AttentionPartial(found.out_BHSD * weight_BHS[..., None], lse_BHS)
