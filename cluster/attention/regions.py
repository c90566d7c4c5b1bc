"""Whose prompt each place of a canvas is told: shares of every prompt in latent cells and tokens.

Shape suffixes: P prompts, R rows, C columns, S tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from frieze.kernels.reference import wide

from ..layout import LayoutError, TokenGrid


@dataclass(frozen=True, eq=False)
class Regions:
    """The shares of each latent cell of a whole canvas, which add up to 1.

    Float64, on the CPU, and the same on every rank.
    """

    share_PRC: Tensor
    _known: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def of_canvas(self, grid: TokenGrid, like: Tensor) -> Tensor:
        """Shares of all tokens of one frame, [P, S], each the mean over its cells.

        On the device of `like` and as wide as it, at least float32. LayoutError where tokens are no
        whole cells.
        """
        key = (grid.rows, grid.columns, like.device, wide(like.dtype))
        if key not in self._known:
            rows, columns = self.share_PRC.shape[1:]
            if rows % grid.rows or columns % grid.columns:
                raise LayoutError(
                    f"{grid.rows}x{grid.columns} tokens are no whole cells of {rows}x{columns}"
                )
            side = (rows // grid.rows, columns // grid.columns)
            share_PRC = F.avg_pool2d(self.share_PRC[None], side)[0]
            self._known[key] = share_PRC.flatten(1).to(like.device, wide(like.dtype))
        return self._known[key]

    def of_band(self, grid: TokenGrid, rank: int, like: Tensor) -> Tensor:
        """Those of a rank's tokens, frame by frame, [P, S]."""
        band, columns = grid.bands[rank], grid.columns
        share_PS = self.of_canvas(grid, like)[:, band.start * columns : band.stop * columns]
        return share_PS.repeat(1, grid.frames)

    def means(self, like: Tensor) -> Tensor:
        """Each prompt's share of the canvas, [P]."""
        return self.share_PRC.mean((1, 2)).to(like.device, wide(like.dtype))
