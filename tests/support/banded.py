"""A small canvas on three unequal bands, and modules that attend to it in every way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.attention import Context
from frieze.cluster.bands import BandError, BandMode, Marks, mark
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from tolerances import AMPLE

BANDS = (Band(0, 4), Band(4, 16), Band(16, 24))
WIDTH = 10


def canvas(*channels: int, height: int = 24, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn((*channels, height, width), generator=generator, dtype=torch.float64)


def rows_of(x: Tensor, band: Band) -> Tensor:
    return x[..., band.start : band.stop, :]


def on_bands(
    function: Callable[[Tensor], Any],
    x: Tensor,
    bands: tuple[Band, ...] = BANDS,
    marks: tuple[Marks, ...] = (),
) -> list[Any]:
    """`function` of every band of x, inside the mode."""

    def rank(comm: Comm) -> Any:
        with BandMode(comm, bands, marks=marks, canvas=Canvas(1, x.shape[-2], x.shape[-1])):
            return function(rows_of(x, bands[comm.rank]))

    return run_threads(rank, len(bands), timeout=AMPLE)


def error(function: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> float:
    """Largest difference between bands and the whole."""
    return float((torch.cat(on_bands(function, x, **options), -2) - function(x)).abs().max())


def refused(function: Callable[[Tensor], Any], x: Tensor, match: str = "", **options: Any) -> None:
    with pytest.raises(BandError, match=match):
        on_bands(function, x, **options)


def weight_3x3() -> Tensor:
    return torch.full((4, 4, 3, 3), 0.1, dtype=torch.float64)


class Attention(nn.Module):
    """Self-attention of x [B, S, D] in as many ways as there are to write it."""

    def __init__(self, way: str = "once", num_heads: int = 2, **options: Any) -> None:
        super().__init__()
        self.way, self.num_heads, self.options = way, num_heads, options

    def forward(self, x: Tensor) -> Tensor:
        q = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if self.way == "raises":
            raise KeyError("the layer's own")
        if self.way == "by hand":
            out = (q @ q.mT).softmax(-1) @ q
        elif self.way == "keys of another":
            out = F.scaled_dot_product_attention(q, q[:, :, :2], q[:, :, :2])
        elif self.way == "grouped":
            out = F.scaled_dot_product_attention(q, q[:, :1], q[:, :1], enable_gqa=True)
        else:
            out = F.scaled_dot_product_attention(q, q, q, **self.options)
            if self.way == "twice":
                out = F.scaled_dot_product_attention(out, q, q, **self.options)
        return out.transpose(1, 2).flatten(2)


class Model(nn.Module):
    """Two attentions over the tokens of a map [1, C, H, W], and back."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


def marked(*layers: nn.Module, context: Context | None = None) -> tuple[Model, tuple[Marks, ...]]:
    model = Model(*layers)
    return model, (mark(model, lambda name, layer: isinstance(layer, Attention), context),)
