"""Positions that are added to tokens: the centre of a square table of sines (arXiv 2403.03206).

Shape suffixes: N rows or columns of the table, S tokens, E features, F a half of them.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError

if TYPE_CHECKING:
    from .family import BandPlace

THETA = 10000.0
# Tables rounded to bfloat16 are off by half as much.
ROUNDING = 2**-8


class SineTable:
    """diffusers' `PatchEmbed` asked for the rows of a band, and beyond the size of its table."""

    def __init__(self, embed: Any) -> None:
        self.embed = embed

    def of(self, place: BandPlace, trained: int = 0) -> Tensor:
        """Positions [S, E] of a band's tokens, row by row; `trained` patches are a trained side.

        The whole canvas takes the table's centre; beyond the table both sides go by its formula,
        and so they do where the place's method draws coordinates together around the centre.
        Raises `ModelError` where it has none.
        """
        table_NNE, patch = self.table, self.embed.patch_size
        size, device = len(table_NNE), table_NNE.device
        height, width = place.canvas.height // patch, place.canvas.width // patch
        top, left = (size - height) // 2, (size - width) // 2
        rows = (top + place.band.start // patch, top + place.band.stop // patch)
        columns = (left + place.across.start // patch, left + place.across.stop // patch)
        shrink = place.absolute or (lambda trained, length: 1.0)
        by_rows, by_columns = (shrink(trained, length) for length in (height, width))
        if max(height, width) <= size and by_rows == by_columns == 1.0:
            return table_NNE[slice(*rows), slice(*columns)].flatten(0, 1)
        num_features = table_NNE.shape[-1] // 2
        column_NF = self._sines(_indices(*columns, device), by_columns, num_features)
        row_NF = self._sines(_indices(*rows, device), by_rows, num_features)
        parts = (column_NF.repeat(len(row_NF), 1), row_NF.repeat_interleave(len(column_NF), dim=0))
        return torch.cat(parts, dim=1).to(table_NNE.dtype)

    def _sines(self, index_N: Tensor, shrink: float, num_features: int) -> Tensor:
        """One side's features by the table's formula, at places drawn together by a factor."""
        start, step = self.grid
        middle = (self.embed.pos_embed_max_size - 1) / 2
        return sines((middle + (index_N - middle) / shrink) * step + start, num_features)

    @property
    def table(self) -> Tensor:
        """What came with the weights: [N, N, E], of columns the first half, of rows the second."""
        size = self.embed.pos_embed_max_size
        table_NNE: Tensor = self.embed.pos_embed.reshape(size, size, -1)
        return table_NNE

    @cached_property
    def grid(self) -> tuple[float, float]:
        """The first coordinate of the table's formula, and what lies between two."""
        table_NNE = self.table
        if table_NNE.is_meta:
            return 0.0, 1.0
        found = fitted(table_NNE)
        if found is None:
            size, patch = len(table_NNE), self.embed.patch_size
            raise ModelError(
                f"the model's positions are not sines, and end after {size} patches of {patch} "
                "latent cells a side; a height and width within that work"
            )
        return found


def sines(position_N: Tensor, num_features: int) -> Tensor:
    """One axis at coordinates [N]: all sines, then all cosines, float64 [N, F]."""
    num_frequencies = num_features // 2
    j = _indices(0, num_frequencies, position_N.device)
    angle = position_N[:, None] * THETA ** (-j / num_frequencies)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def fitted(table_NNE: Tensor) -> tuple[float, float] | None:
    """(start, step) of the coordinates with which `sines` gives the table, None where none do.

    With s patches on a trained side the paper's are -(N - s) / 2 * 16 / s and 16 / s; those that
    diffusers makes for new models differ, so the table itself is asked. The first frequency, one
    radian a unit, gives the step, and the start but for whole turns, which the others tell apart.
    """
    known_NE = table_NNE.diagonal().T.double()
    size, num_features = len(known_NE), known_NE.shape[1] // 2
    column_NF, row_NF = known_NE.split(num_features, dim=1)
    first, step = _line(torch.complex(row_NF[:, num_features // 2], row_NF[:, 0]))
    starts = first + 2 * math.pi * _indices(-size, size + 1, known_NE.device)
    misses = (sines(starts, num_features) - row_NF[0]).abs().amax(dim=1)
    start = float(starts[misses.argmin()])
    line_NF = sines(_indices(0, size, known_NE.device) * step + start, num_features)
    miss = max(float((line_NF - half_NF).abs().max()) for half_NF in (row_NF, column_NF))
    return (start, step) if miss <= ROUNDING else None


def _line(turn_N: Tensor) -> tuple[float, float]:
    """Start and step of angles on a line, of exp(i angle): least squares around a first guess."""
    index_N = _indices(0, len(turn_N), turn_N.device)
    index_N -= index_N.mean()
    step = float((turn_N[1:] * turn_N[:-1].conj()).sum().angle())
    for _ in range(3):
        left_N = turn_N * torch.exp(-1j * step * index_N)
        middle = left_N.sum().angle()
        drift_N = (left_N * torch.exp(-1j * middle)).angle()
        step += float((drift_N * index_N).sum() / index_N.square().sum())
    return float(middle) + float(index_N[0]) * step, step


def _indices(start: int, stop: int, device: torch.device) -> Tensor:
    return torch.arange(start, stop, dtype=torch.float64, device=device)
