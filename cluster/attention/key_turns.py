"""Exact attention whose keys stand elsewhere for each tile of queries: turned within the ring.

Rotary keys arrive rotated by their own positions.  A key that is to stand at another place of the
canvas is rotated further by the difference, which is the same bits on any number of ranks, so keys
and values travel once, and every rank turns what passes it for the tiles that it has rows of.

Shape suffixes: B batch, H heads, S tokens, D head dim, F pairs of a head's channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from frieze.kernels.attention import AttentionPartial, attend
from frieze.kernels.reference import wide

from ..comm import AxisComms
from ..layout import TokenGrid
from .sequence_parallel import Context, TokenLayout, text_rows


@dataclass(frozen=True)
class KeyTurns:
    """By how much the canvas' keys are turned for each tile of queries.

    Tiles are every one of `rows` times every one of `columns`, which cover the canvas. A key at
    (r, c) is turned for tile (i, j) by row_angles[i, r] + column_angles[j, c], radians for each
    pair of neighbouring channels [F], float64 on the CPU.
    """

    rows: tuple[range, ...]
    columns: tuple[range, ...]
    row_angles: Tensor
    column_angles: Tensor


def turned_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    turns: KeyTurns,
    scale: float | None = None,
    context: Context | None = None,
) -> Tensor:
    """As `canvas_attention` of these tokens, but that each tile's queries ask turned keys.

    Text is asked, and asks, as it stands.  Keys are turned in float32 or wider.
    """
    context = Context(0) if context is None else context
    layout = TokenLayout.of(q_BHSD, comms, grid.tokens, context, grid.frames)
    (q_text, q), (k_text, k), (v_text, v) = (context.split(x) for x in (q_BHSD, k_BHSD, v_BHSD))
    own = layout.to_heads(q)
    found = _of_tiles(own, torch.cat((k, v)), layout, grid, turns, scale)
    if context.num_tokens:
        mine = layout.mine
        found = found + attend(own, k_text[:, mine], v_text[:, mine], scale=scale)
    image = layout.to_tokens(found.out_BHSD.to(q.dtype))
    if not context.num_tokens:
        return image
    text = text_rows(q_text, k, v, k_text, v_text, comms.world, scale)
    return context.join(text.to(q.dtype), image)


def _of_tiles(
    q: Tensor,
    kv: Tensor,
    layout: TokenLayout,
    grid: TokenGrid,
    turns: KeyTurns,
    scale: float | None,
) -> AttentionPartial:
    """Attention over the image keys of the canvas, of this rank's queries after `to_heads`."""
    places = [_rows_and_columns(places, grid) for places in layout.raster_of_groups()]
    tiles = list(_tiles(*places[layout.comms.ring.rank], turns))
    chosen = [index_S.to(q.device) for *_, index_S in tiles]
    angles = [_Angles(turns, i, j, q.device) for i, j, _ in tiles]
    partials: list[list[AttentionPartial]] = [[] for _ in tiles]

    def visit(kv: Tensor, source: int) -> None:
        k, v = kv.chunk(2)
        row_S, column_S = (numbers_S.to(q.device) for numbers_S in places[source])
        for of_tile, index_S, found in zip(angles, chosen, partials, strict=True):
            turned = _turned(k, of_tile, row_S, column_S)
            new = attend(q.index_select(2, index_S), turned, v, scale=scale)
            found[:] = [found[0] + new] if found else [new]

    layout.around(layout.to_heads(kv), visit)
    order = torch.cat(chosen).argsort() if len(chosen) > 1 else None
    whole = [part for (part,) in partials]
    out = torch.cat([part.out_BHSD for part in whole], dim=2)
    lse = torch.cat([part.lse_BHS for part in whole], dim=2)
    if order is not None:
        out, lse = out.index_select(2, order), lse.index_select(2, order)
    return AttentionPartial(out, lse)


def _rows_and_columns(places_S: Tensor, grid: TokenGrid) -> tuple[Tensor, Tensor]:
    """Of tokens by their places in the raster of all frames."""
    in_frame = places_S % (grid.rows * grid.columns)
    return in_frame // grid.columns, in_frame % grid.columns


def _tiles(row_S: Tensor, column_S: Tensor, turns: KeyTurns) -> Iterator[tuple[int, int, Tensor]]:
    """(i, j, the queries' indices) of the tiles that these queries lie in."""
    for i, rows in enumerate(turns.rows):
        in_rows = (row_S >= rows.start) & (row_S < rows.stop)
        if not bool(in_rows.any()):
            continue
        for j, columns in enumerate(turns.columns):
            inside = in_rows & (column_S >= columns.start) & (column_S < columns.stop)
            if bool(inside.any()):
                yield i, j, inside.nonzero().flatten()


class _Angles:
    """By how much rows and columns of the canvas are turned for one tile, on a device."""

    def __init__(self, turns: KeyTurns, i: int, j: int, device: torch.device) -> None:
        row_RF, column_CF = turns.row_angles[i], turns.column_angles[j]
        self.is_idle = not (bool(row_RF.any()) or bool(column_CF.any()))
        self.row_RF, self.column_CF = row_RF.to(device), column_CF.to(device)


def _turned(k_BHSD: Tensor, angles: _Angles, row_S: Tensor, column_S: Tensor) -> Tensor:
    """Keys rotated further, each pair of neighbouring channels by its angle."""
    if angles.is_idle:
        return k_BHSD
    dtype = wide(k_BHSD.dtype)
    angle_SF = angles.row_RF[row_S] + angles.column_CF[column_S]
    cos_SF, sin_SF = angle_SF.cos().to(dtype), angle_SF.sin().to(dtype)
    a, b = k_BHSD.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack((a * cos_SF - b * sin_SF, a * sin_SF + b * cos_SF), dim=-1)
    return pairs.flatten(-2).to(k_BHSD.dtype)
