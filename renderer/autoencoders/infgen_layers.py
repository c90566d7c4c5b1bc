"""Layers of InfGen's decoder; none needs more of the canvas than its own reach.

Shape suffixes: B batch, C channels, H rows, W columns, K keys, P pooled keys, N heads, D of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .infgen_positions import OCTAVES, Window, in_cells, neighbours, waves

# Numbers of keys that are gathered at once; rows of queries are taken in turn beyond it.
MOST_GATHERED = 1 << 24
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
    """The latent's tokens [B, C, H, W], and the same with their positions, for keys."""

    values: Tensor
    keys: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.values.shape[-2], self.values.shape[-1]


class CrossAttention(nn.Module):
    """Each place of the canvas asks the latent: all of its cells, or those around it.

    `global` is the paper's. In `window` the keys are the `reach` x `reach` cells around the place,
    weighed by how far they are, and `pooled` x `pooled` means of all of it.
    """

    def __init__(self, channels: int, heads: int, mode: str, reach: int, pooled: int) -> None:
        super().__init__()
        self.heads, self.mode, self.reach, self.pooled = heads, mode, reach, pooled
        self.to_q, self.to_k, self.to_v, self.to_out = (
            nn.Conv2d(channels, channels, 1) for _ in range(4)
        )
        self.norm_q = nn.RMSNorm(channels // heads, eps=SMALL)
        self.norm_k = nn.RMSNorm(channels // heads, eps=SMALL)
        if mode == "window":
            self.distance = nn.Linear(2 * OCTAVES, heads, bias=False)

    def forward(self, x_BCHW: Tensor, cells: Cells, window: Window) -> Tensor:
        """What the latent answers each place of the window, [B, C, H, W]."""
        q = self.norm_q(self._split(self.to_q(x_BCHW)))
        k, v = self.norm_k(self._split(self.to_k(cells.keys))), self._split(self.to_v(cells.values))
        if self.mode == "global":
            q_all, k_all, v_all = (each.flatten(1, 2).transpose(1, 2) for each in (q, k, v))
            answers = F.scaled_dot_product_attention(q_all, k_all, v_all).transpose(1, 2)
            answers = answers.reshape(q.shape)
        else:
            answers = self._around(q, k, v, cells, window)
        out: Tensor = self.to_out(answers.flatten(3).permute(0, 3, 1, 2))
        return out

    def _split(self, x_BCHW: Tensor) -> Tensor:
        """Heads apart: [B, H, W, N, D]."""
        return x_BCHW.permute(0, 2, 3, 1).unflatten(3, (self.heads, -1))

    def _around(self, q: Tensor, k: Tensor, v: Tensor, cells: Cells, window: Window) -> Tensor:
        """The window's places, a few rows at a time."""
        far = []
        numbers = []
        for part, most, here in zip(
            (window.rows, window.columns), window.size, cells.size, strict=True
        ):
            number, distance = neighbours(in_cells(part, most, here), here, self.reach)
            numbers.append(number.to(q.device))
            far.append(self.distance(waves(distance).to(q)))
        k_BPND, v_BPND = self._pooled(k), self._pooled(v)
        row = numbers[0].shape[1] * numbers[1].numel() * q.shape[0] * q[0, 0, 0].numel()
        step = max(1, MOST_GATHERED // row)
        parts = []
        for top in range(0, q.shape[1], step):
            some = slice(top, top + step)
            near_k, near_v = (_gathered(each, numbers[0][some], numbers[1]) for each in (k, v))
            bias = far[0][some, None, :, None] + far[1][None, :, None, :]
            keys = (near_k, near_v, bias.flatten(2, 3))
            parts.append(_attended(q[:, some], *keys, k_BPND, v_BPND))
        return torch.cat(parts, dim=1)

    def _pooled(self, x_BHWND: Tensor) -> Tensor:
        """Means of parts of the latent, [B, P, N, D]."""
        flat_BCHW = x_BHWND.flatten(3).permute(0, 3, 1, 2)
        means_BCP = F.adaptive_avg_pool2d(flat_BCHW, self.pooled).flatten(2)
        return means_BCP.transpose(1, 2).unflatten(2, x_BHWND.shape[3:])


def _gathered(x_BHWND: Tensor, rows_HK: Tensor, columns_WK: Tensor) -> Tensor:
    """Each place's own cells, [B, H, W, K, N, D] with K = rows x columns."""
    tall = x_BHWND[:, rows_HK]
    both = tall[:, :, :, columns_WK]  # [B, H, K, W, K, N, D]
    return both.transpose(2, 3).flatten(3, 4)


def _attended(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, k_BPND: Tensor, v_BPND: Tensor
) -> Tensor:
    """Softmax over a place's own cells and the pooled ones together."""
    scale = q.shape[-1] ** -0.5
    own = torch.einsum("bhwnd,bhwknd->bhwkn", q, k) * scale + bias
    rest = torch.einsum("bhwnd,bpnd->bhwpn", q, k_BPND) * scale
    weights = torch.cat([own, rest], dim=3).softmax(dim=3)
    near, wide = weights.split([own.shape[3], rest.shape[3]], dim=3)
    return torch.einsum("bhwkn,bhwknd->bhwnd", near, v) + torch.einsum(
        "bhwpn,bpnd->bhwnd", wide, v_BPND
    )


class Block(nn.Module):
    """Cross-attention, a depthwise convolution and an MLP, each beside its input."""

    def __init__(self, channels: int, embedding: int, attention: nn.Module, kernel: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (ChannelNorm(channels) for _ in range(3))
        self.attention = attention
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )
        self.modulation = Modulation(embedding, channels)

    def forward(self, x_BCHW: Tensor, cells: Cells, window: Window, embedding_BC: Tensor) -> Tensor:
        """The same shape; its reach is half of the convolution's kernel."""
        x_BCHW = x_BCHW + self.attention(self.norm1(x_BCHW), cells, window)
        x_BCHW = x_BCHW + self.conv(self.norm2(x_BCHW))
        out: Tensor = x_BCHW + self.mlp(self.modulation(self.norm3(x_BCHW), embedding_BC))
        return out


class TrunkBlock(nn.Module):
    """Self-attention of the latent's cells and an MLP, on every rank alike."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = CrossAttention(channels, heads, "global", 0, 0)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, x_BCHW: Tensor, position_CHW: Tensor) -> Tensor:
        """The same shape; positions are in queries and keys, not in values."""
        normed = self.norm1(x_BCHW)
        placed = normed + position_CHW
        window = Window.whole((x_BCHW.shape[-2], x_BCHW.shape[-1]))
        x_BCHW = x_BCHW + self.attention(placed, Cells(normed, placed), window)
        out: Tensor = x_BCHW + self.mlp(self.norm2(x_BCHW))
        return out
