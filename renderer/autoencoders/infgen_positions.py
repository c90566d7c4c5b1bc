"""Where InfGen's tokens lie: on the canvas, on the sphere, and between the cells of the latent.

Places are computed in float64 from whole numbers of the whole canvas, so that they do not depend
on the window that is drawn. Shape suffixes: H rows, W columns, N features, K keys along one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SPAN = 0.9  # of the half sphere: on all of it, the picture's edges would coincide at the poles
OCTAVES = 4


@dataclass(frozen=True)
class Window:
    """A part of a grid of `size` (rows, columns), in its own units.

    Where its sides meet (`wraps` as of a canvas) places go on beyond them at the other side.
    """

    size: tuple[int, int]
    rows: range
    columns: range
    wraps: str = ""

    @classmethod
    def whole(cls, size: tuple[int, int], wraps: str = "") -> Window:
        """All of it."""
        return cls(size, range(size[0]), range(size[1]), wraps)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that it has."""
        return len(self.rows), len(self.columns)

    def grown(self, by: int) -> Window:
        """With so many more on all sides, where the grid has them."""
        rows, columns = (
            range(part.start - by, part.stop + by)
            if side in self.wraps
            else range(max(0, part.start - by), min(most, part.stop + by))
            for side, part, most in zip("yx", (self.rows, self.columns), self.size, strict=True)
        )
        return Window(self.size, rows, columns, self.wraps)

    def times(self, factor: int) -> Window:
        """The same part of a grid that is so many times finer."""
        rows, columns = (
            range(part.start * factor, part.stop * factor) for part in (self.rows, self.columns)
        )
        return Window((self.size[0] * factor, self.size[1] * factor), rows, columns, self.wraps)

    def covered(self, unit: int) -> Window:
        """The least window of a grid `unit` times coarser that holds this one."""
        rows, columns = (
            range(part.start // unit, -(-part.stop // unit)) for part in (self.rows, self.columns)
        )
        return Window((self.size[0] // unit, self.size[1] // unit), rows, columns, self.wraps)

    def of(self, outer: Window, x: Tensor) -> Tensor:
        """This window's part of a tensor [..., H, W] over an outer one."""
        top = self.rows.start - outer.rows.start
        left = self.columns.start - outer.columns.start
        return x[..., top : top + len(self.rows), left : left + len(self.columns)]

    def taken(self, x: Tensor) -> Tensor:
        """This window's part of a tensor [..., H, W] over the whole grid."""
        if not self.wraps:
            return self.of(Window.whole(self.size), x)
        rows, columns = (
            torch.tensor(part, device=x.device) % most
            for part, most in zip((self.rows, self.columns), self.size, strict=True)
        )
        return x.index_select(-2, rows).index_select(-1, columns)


def centres(places: range, size: int) -> Tensor:
    """Middles of places of an axis as parts of it, in (0, 1); of a doubled grid, their means."""
    return (torch.arange(places.start, places.stop, dtype=torch.float64) + 0.5) / size


def sphere(window: Window) -> Tensor:
    """Points on the unit sphere [H, W, 3]: columns are longitudes, rows latitudes."""
    lat_H, lon_W = (
        SPAN * math.pi * (centres(part, most).remainder(1) - 0.5)
        for part, most in zip((window.rows, window.columns), window.size, strict=True)
    )
    cos_H1, sin_H1 = lat_H.cos()[:, None], lat_H.sin()[:, None]
    parts = (cos_H1 * lon_W.cos(), cos_H1 * lon_W.sin(), sin_H1.expand(-1, len(lon_W)))
    return torch.stack(parts, dim=-1)


def in_cells(places: range, size: int, cells: int) -> Tensor:
    """Where the middles of an axis' places lie between the latent's cells: 0 is its first one."""
    return centres(places, size) * cells - 0.5


def neighbours(at: Tensor, cells: int, reach: int, *, wraps: bool = False) -> tuple[Tensor, Tensor]:
    """(numbers [H, K] of the cells around each place, how far each is from it, in cells).

    `reach` cells, the nearest in the middle where the edge allows, else as many inside it. Where
    the axis' ends meet (`wraps`) there is no edge, and numbers go on beyond it.
    """
    reach = min(reach, cells)
    first = (at + 0.5).floor().long() - reach // 2
    first = first if wraps else first.clamp(0, cells - reach)
    number = first[:, None] + torch.arange(reach)
    return number, number - at[:, None]


def waves(x: Tensor) -> Tensor:
    """Sines and cosines of octaves of a distance in cells, [..., 2 * OCTAVES]; even at 0."""
    angles = x[..., None] * (math.pi / 4 * 2.0 ** torch.arange(OCTAVES, dtype=x.dtype))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class INPE(nn.Module):
    """Implicit neural positional embedding (InfGen, arXiv 2509.10441, sec. 3.3).

    Sphere, Fourier features of fixed random directions, and a small network; the paper does not
    say how many directions, how wide or how deep.
    """

    directions_N3: Tensor

    def __init__(self, width: int, directions: int, scale: float) -> None:
        super().__init__()
        fixed = torch.randn(directions, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("directions_N3", fixed * scale)
        self.network = nn.Sequential(
            nn.Linear(2 * directions, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, window: Window) -> Tensor:
        """Positional tokens [H, W, C] of a window."""
        # In half precision neighbours on a large canvas would be at one place; products of matrices
        # are rounded to it by autocast.
        directions_N3 = self.directions_N3
        directions_N3 = directions_N3.to(torch.promote_types(directions_N3.dtype, torch.float32))
        points_HW3 = sphere(window).to(directions_N3)
        x_HWN, y_HWN, z_HWN = (points_HW3[..., d, None] * directions_N3[:, d] for d in range(3))
        angles_HWN = x_HWN + y_HWN + z_HWN
        features_HWN = torch.cat([angles_HWN.cos(), angles_HWN.sin()], dim=-1)
        weight = next(self.network.parameters())
        tokens: Tensor = self.network(features_HWN.to(weight.dtype))
        return tokens
