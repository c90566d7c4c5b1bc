"""Layers of InfGen's decoder; none needs more of the canvas than its own reach.

Shape suffixes: B batch, C channels, H rows, W columns, N heads, D of a head; R, S rows and columns
of tiles, T places of a tile, K keys (of a tile, along an axis: k), P pooled keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .infgen_positions import OCTAVES, Window, in_cells, neighbours, waves

# Scores that are computed at once; rows of tiles are taken in turn beyond it.
MOST_SCORES = 1 << 24
TILE = 8  # places a side that look at one set of keys
SMALL = 1e-6


class ChannelNorm(nn.Module):
    """Root mean square over the channels of each place [B, C, H, W]: no statistics of a canvas."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape, each place of mean square 1 before the weights."""
        size_B1HW = (x_BCHW.square().mean(dim=1, keepdim=True) + SMALL).rsqrt()
        return x_BCHW * size_B1HW * self.weight[:, None, None]


class Modulation(nn.Module):
    """Scale and shift of channels by the noise level and the enlargement; none at first."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BCHW: Tensor, embedding_BC: Tensor) -> Tensor:
        """x (1 + scale) + shift."""
        scale_BC, shift_BC = self.linear(F.silu(embedding_BC)).chunk(2, dim=1)
        return x_BCHW * (1 + scale_BC[..., None, None]) + shift_BC[..., None, None]


class ResidualConvolutions(nn.Module):
    """Two convolutions of 3 x 3 beside the input; its reach is 2 places."""

    reach = 2

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = Modulation(embedding, channels)

    def forward(self, x_BCHW: Tensor, embedding_BC: Tensor) -> Tensor:
        """The same shape."""
        hidden = self.conv1(F.silu(self.norm1(x_BCHW)))
        hidden = self.modulation(self.norm2(hidden), embedding_BC)
        return x_BCHW + self.conv2(F.silu(hidden))


@dataclass(frozen=True)
class Cells:
    """The latent's tokens [B, C, H, W] over a window of them, and means over all of it [B, C, P].

    Each also with its positions, for keys.
    """

    window: Window
    values: Tensor
    keys: Tensor
    pooled_values: Tensor
    pooled_keys: Tensor


class CrossAttention(nn.Module):
    """Each place of the canvas asks the latent: all of its cells, or those around it.

    `global` is the paper's. In `window` the keys are the `reach` x `reach` cells around the place,
    weighed by how far they are, and the means of all of it.
    """

    def __init__(self, channels: int, heads: int, mode: str, reach: int) -> None:
        super().__init__()
        self.heads, self.mode, self.reach = heads, mode, reach
        self.to_q, self.to_k, self.to_v, self.to_out = (
            nn.Linear(channels, channels) for _ in range(4)
        )
        self.norm_q = nn.RMSNorm(channels // heads, eps=SMALL)
        self.norm_k = nn.RMSNorm(channels // heads, eps=SMALL)
        if mode == "window":
            self.distance = nn.Linear(2 * OCTAVES, heads, bias=False)

    def forward(self, x_BCHW: Tensor, cells: Cells, window: Window) -> Tensor:
        """What the latent answers each place of the window, [B, C, H, W]."""
        q = self.norm_q(self._heads(x_BCHW.movedim(1, -1), self.to_q))
        k = self.norm_k(self._heads(cells.keys.movedim(1, -1), self.to_k))
        v = self._heads(cells.values.movedim(1, -1), self.to_v)
        if self.mode == "global":
            q_all, k_all, v_all = (each.flatten(1, 2).transpose(1, 2) for each in (q, k, v))
            answers = F.scaled_dot_product_attention(q_all, k_all, v_all).transpose(1, 2)
            answers = answers.reshape(q.shape)
        else:
            k_BPND = self.norm_k(self._heads(cells.pooled_keys.movedim(1, -1), self.to_k))
            v_BPND = self._heads(cells.pooled_values.movedim(1, -1), self.to_v)
            answers = self._around(q, (k, v), (k_BPND, v_BPND), cells.window, window)
        out: Tensor = self.to_out(answers.flatten(-2))
        return out.movedim(-1, 1)

    def _heads(self, x: Tensor, linear: nn.Module) -> Tensor:
        """Heads apart: [B, ..., N, D]."""
        return linear(x).unflatten(-1, (self.heads, -1))

    def _around(
        self,
        q_BHWND: Tensor,
        cells: tuple[Tensor, Tensor],
        pooled: tuple[Tensor, Tensor],
        own: Window,
        window: Window,
    ) -> Tensor:
        """The window's places, a few rows of tiles at a time."""
        high, wide = (
            self._keys(part, most, there, part_of_cells, q_BHWND, wraps=side in window.wraps)
            for side, part, most, there, part_of_cells in zip(
                "yx",
                (window.rows, window.columns),
                window.size,
                own.size,
                (own.rows, own.columns),
                strict=True,
            )
        )
        a_row = q_BHWND.shape[0] * wide.places.numel() * TILE * self.heads
        a_row *= high.cells.shape[1] * wide.cells.shape[1] + pooled[0].shape[1]
        step = max(1, MOST_SCORES // a_row)
        parts = [
            _attended(q_BHWND, cells, pooled, high.part(slice(top, top + step)), wide)
            for top in range(0, len(high.places), step)
        ]
        return torch.cat(parts, dim=1)[:, : q_BHWND.shape[1], : q_BHWND.shape[2]]

    def _keys(
        self, part: range, most: int, there: int, own: range, like: Tensor, *, wraps: bool
    ) -> AxisKeys:
        """Which cells each tile of an axis asks, and how near they are to each of its places."""
        number, _ = neighbours(in_cells(part, most, there), there, self.reach, wraps=wraps)
        places = torch.arange(-(-len(part) // TILE) * TILE).clamp(max=len(part) - 1)
        number_RTk = number[places].unflatten(0, (-1, TILE))
        first_R, last_R = number_RTk.amin((1, 2)), number_RTk.amax((1, 2))
        span = int((last_R - first_R).max()) + 1
        # Tiles at the end ask cells that others do, so that all have as many.
        first_R = torch.minimum(first_R, torch.tensor(own.stop - span))
        cells_Rk = first_R[:, None] + torch.arange(span)
        at_RT1 = in_cells(part, most, there)[places].unflatten(0, (-1, TILE))[..., None]
        near_RTk = self.distance(waves(cells_Rk[:, None] - at_RT1).to(like)).movedim(-1, 0)
        asked_RTk = (cells_Rk[:, None] >= number_RTk[..., :1]) & (
            cells_Rk[:, None] <= number_RTk[..., -1:]
        )
        bias_NRTk = near_RTk.masked_fill(~asked_RTk.to(like.device), -torch.inf)
        places_RT, device = places.unflatten(0, (-1, TILE)), like.device
        return AxisKeys(places_RT.to(device), (cells_Rk - own.start).to(device), bias_NRTk)


@dataclass(frozen=True)
class AxisKeys:
    """Tiles along an axis: their places [R, T] and the cells [R, k] that they ask.

    The bias [N, R, T, k] is minus infinity for cells that a place does not ask.
    """

    places: Tensor
    cells: Tensor
    bias: Tensor

    def part(self, some: slice) -> AxisKeys:
        """Some of the tiles."""
        return AxisKeys(self.places[some], self.cells[some], self.bias[:, some])


def _attended(
    q_BHWND: Tensor,
    cells: tuple[Tensor, Tensor],
    pooled: tuple[Tensor, Tensor],
    high: AxisKeys,
    wide: AxisKeys,
) -> Tensor:
    """Softmax over a place's own cells and the pooled ones together: [B, R T, S T, N, D]."""
    q = _tiles(q_BHWND, high.places, wide.places) * q_BHWND.shape[-1] ** -0.5
    k, v = (_tiles(each, high.cells, wide.cells) for each in cells)  # [B, R, S, N, K, D]
    bias = high.bias[:, :, None, :, None, :, None] + wide.bias[:, None, :, None, :, None, :]
    own = q @ k.mT + bias.flatten(-2).flatten(3, 4).permute(1, 2, 0, 3, 4)
    k_BNPD, v_BNPD = (each.transpose(1, 2)[:, None, None] for each in pooled)
    weights = torch.cat([own, q @ k_BNPD.mT], dim=-1).softmax(dim=-1)
    near, rest = weights.split([own.shape[-1], k_BNPD.shape[-2]], dim=-1)
    answers = near @ v + rest @ v_BNPD
    shape = (high.places.shape[1], wide.places.shape[1])
    return answers.unflatten(4, shape).permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)


def _tiles(x_BHWND: Tensor, rows_Rk: Tensor, columns_Sk: Tensor) -> Tensor:
    """Rows and columns of each tile together, [B, R, S, N, K, D] with K = k x k."""
    tall = x_BHWND[:, rows_Rk.flatten()]
    both = tall[:, :, columns_Sk.flatten()]
    shaped = both.unflatten(2, columns_Sk.shape).unflatten(1, rows_Rk.shape)
    return shaped.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)


class ChannelMLP(nn.Module):
    """Two layers over the channels of each place [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.linear2(F.gelu(self.linear1(x_BCHW.movedim(1, -1))))
        return out.movedim(-1, 1)


class Block(nn.Module):
    """Cross-attention, a depthwise convolution and an MLP, each beside its input."""

    def __init__(self, channels: int, embedding: int, attention: nn.Module, kernel: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (ChannelNorm(channels) for _ in range(3))
        self.attention = attention
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.mlp = ChannelMLP(channels)
        self.modulation = Modulation(embedding, channels)

    def forward(self, x_BCHW: Tensor, cells: Cells, window: Window, embedding_BC: Tensor) -> Tensor:
        """The same shape; its reach is half of the convolution's kernel."""
        x_BCHW = x_BCHW + self.attention(self.norm1(x_BCHW), cells, window)
        x_BCHW = x_BCHW + self.conv(self.norm2(x_BCHW))
        out: Tensor = x_BCHW + self.mlp(self.modulation(self.norm3(x_BCHW), embedding_BC))
        return out


class TrunkBlock(nn.Module):
    """A depthwise convolution over the latent's cells and an MLP: as local as the canvas' own."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.mlp = ChannelMLP(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape; its reach is half of the convolution's kernel."""
        x_BCHW = x_BCHW + self.conv(self.norm1(x_BCHW))
        out: Tensor = x_BCHW + self.mlp(self.norm2(x_BCHW))
        return out


class PooledBlock(nn.Module):
    """Self-attention of the few means of the latent, and an MLP; the whole layout meets here."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = CrossAttention(channels, heads, "global", 0)
        self.mlp = ChannelMLP(channels)

    def forward(self, x_BCHW: Tensor, position_CHW: Tensor) -> Tensor:
        """The same shape; positions are in queries and keys, not in values."""
        normed = self.norm1(x_BCHW)
        placed = normed + position_CHW
        window = Window.whole((x_BCHW.shape[-2], x_BCHW.shape[-1]))
        cells = Cells(window, normed, placed, normed.flatten(2), placed.flatten(2))
        x_BCHW = x_BCHW + self.attention(placed, cells, window)
        out: Tensor = x_BCHW + self.mlp(self.norm2(x_BCHW))
        return out
