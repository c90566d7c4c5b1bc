"""Where a picture lies: canvas, bands, halos and the mesh of ranks; integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Literal

MeshAxis = Literal["guidance", "ring", "ulysses"]


class LayoutError(ValueError):
    """The canvas cannot be cut, scaled or spread as asked; the message says what would work."""


@dataclass(frozen=True)
class Canvas:
    """The whole picture in latent units; `wraps` names the sides that meet: x, y, xy or none."""

    frames: int
    height: int
    width: int
    wraps: str = ""

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width) < 1:
            raise LayoutError(
                f"canvas of {self.frames} frames, {self.height}x{self.width}: "
                "every side must be at least 1"
            )


@dataclass(frozen=True, order=True)
class Band:
    """Rows [start, stop) of a canvas, at some resolution."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise LayoutError(f"band [{self.start}, {self.stop}): need 0 <= start <= stop")

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def scaled(self, factor: Fraction | int) -> Band:
        """The same rows at `factor` times the resolution; LayoutError unless they stay whole."""
        start, stop = Fraction(self.start) * factor, Fraction(self.stop) * factor
        if start.denominator != 1 or stop.denominator != 1:
            unit = Fraction(factor).denominator
            raise LayoutError(
                f"band [{self.start}, {self.stop}) times {factor} falls between rows; "
                f"cut the canvas at multiples of {unit}"
            )
        return Band(int(start), int(stop))


@dataclass(frozen=True)
class Tile:
    """A rectangle of a canvas that is drawn at once."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> Band:
        """Its rows of the canvas."""
        return Band(self.top, self.top + self.height)

    @property
    def columns(self) -> Band:
        """Its columns of the canvas."""
        return Band(self.left, self.left + self.width)


@dataclass(frozen=True)
class TokenGrid:
    """Image tokens of a layer on the whole canvas: frames of rows and columns, cut into bands."""

    frames: int
    bands: tuple[Band, ...]
    columns: int

    @property
    def rows(self) -> int:
        """Rows of tokens on the canvas."""
        return self.bands[-1].stop

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of every band."""
        return tuple(self.frames * band.rows * self.columns for band in self.bands)


@dataclass(frozen=True)
class Halo:
    """Rows a band borrows from its neighbours; negative = own rows to drop."""

    above: int
    below: int


@dataclass(frozen=True)
class Mesh:
    """Ranks on three axes; rank = (guidance * ring + ring) * ulysses + ulysses coordinate."""

    guidance: int = 1
    ring: int = 1
    ulysses: int = 1

    def __post_init__(self) -> None:
        if min(self.guidance, self.ring, self.ulysses) < 1:
            raise LayoutError(
                f"mesh {self.guidance}x{self.ring}x{self.ulysses}: every axis needs at least 1 rank"
            )

    @property
    def world_size(self) -> int:
        return self.guidance * self.ring * self.ulysses

    def coordinates(self, rank: int) -> tuple[int, int, int]:
        """(guidance, ring, ulysses) coordinates of a rank."""
        if not 0 <= rank < self.world_size:
            raise LayoutError(f"rank {rank} is not on the mesh; it has {self.world_size} ranks")
        outer, u = divmod(rank, self.ulysses)
        g, r = divmod(outer, self.ring)
        return g, r, u

    def rank(self, guidance: int, ring: int, ulysses: int) -> int:
        """The rank at these coordinates."""
        at = (guidance, ring, ulysses)
        sides = (self.guidance, self.ring, self.ulysses)
        if not all(0 <= i < side for i, side in zip(at, sides, strict=True)):
            raise LayoutError(f"coordinates {at} lie outside the mesh {sides}")
        return (guidance * self.ring + ring) * self.ulysses + ulysses

    def group(self, rank: int, axis: MeshAxis) -> tuple[int, ...]:
        """The ranks that differ from `rank` on one axis only, in the order of that axis."""
        g, r, u = self.coordinates(rank)
        if axis == "guidance":
            return tuple(self.rank(i, r, u) for i in range(self.guidance))
        if axis == "ring":
            return tuple(self.rank(g, i, u) for i in range(self.ring))
        if axis == "ulysses":
            return tuple(self.rank(g, r, i) for i in range(self.ulysses))
        raise LayoutError(f"mesh axis {axis!r}: use guidance, ring or ulysses")


def cut(
    height: int, parts: int, align: int = 1, weights: Sequence[float] | None = None
) -> tuple[Band, ...]:
    """Cuts `height` rows into `parts` bands that start at multiples of `align`.

    Every band has at least `align` rows; rows beyond the last multiple go to the last band.
    Without `weights` heights differ by at most `align` (and that remainder); with them they
    follow the weights as closely as that allows. LayoutError says the most parts possible.
    """
    if height < 1 or parts < 1 or align < 1:
        raise LayoutError(
            f"cut({height} rows, {parts} parts, align {align}): each must be at least 1"
        )
    units = max(height // align, 1)
    if parts > units:
        raise LayoutError(
            f"{height} rows cannot be cut into {parts} bands of at least {align} rows; "
            f"at most {units} bands are possible"
        )
    edges = [edge * align for edge in _edges(units, _shares(parts, weights))]
    edges[-1] = height
    return tuple(Band(start, stop) for start, stop in pairwise(edges))


def _shares(parts: int, weights: Sequence[float] | None) -> list[Fraction]:
    if weights is None:
        return [Fraction(1)] * parts
    if len(weights) != parts:
        raise LayoutError(f"{len(weights)} weights for {parts} bands; give one weight per band")
    if not all(math.isfinite(w) and w > 0 for w in weights):
        raise LayoutError(f"weights {list(weights)}: each must be a positive number")
    return [Fraction(w) for w in weights]


def _edges(units: int, shares: list[Fraction]) -> list[int]:
    """Rounded cumulative shares of `units`, pushed apart so that no part is empty."""
    parts, total = len(shares), sum(shares)
    edges = [0]
    for i, share in enumerate(accumulate(shares), start=1):
        nearest = math.floor(units * share / total + Fraction(1, 2))
        edges.append(min(max(nearest, edges[-1] + 1), units - (parts - i)))
    return edges


def conv_rows(
    band: Band,
    height: int,
    *,
    kernel: int,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
) -> tuple[Band, Halo]:
    """Which output rows of a convolution a band owns, and which input rows they need.

    `height` is the whole canvas at this resolution, `padding` the rows of zeros above and below
    it. Output row o reads input rows o*stride - above + dilation*(0 .. kernel-1). A band owns the
    outputs ceil(start/stride) .. ceil(stop/stride); the canvas's last band owns all that are left.
    Halo rows outside the canvas are zeros: they are the padding. A band that owns no output
    drops all its rows.
    """
    above, below = (padding, padding) if isinstance(padding, int) else padding
    reach = dilation * (kernel - 1)
    height_out = (height + above + below - reach - 1) // stride + 1
    if height_out < 1:
        raise LayoutError(
            f"a kernel that spans {reach + 1} rows does not fit {height} rows padded by "
            f"{above} above and {below} below; it needs at least {reach + 1 - above - below} rows"
        )
    start = min(-(-band.start // stride), height_out)
    stop = height_out if band.stop == height else min(-(-band.stop // stride), height_out)
    if start == stop:
        return Band(start, stop), Halo(0, -band.rows)
    first = start * stride - above
    last = (stop - 1) * stride - above + reach
    return Band(start, stop), Halo(band.start - first, last + 1 - band.stop)


def tile_starts(
    length: int, size: int, overlap: int, unit: int, offset: int | None = None
) -> tuple[int, ...]:
    """Where tiles of `size` cells begin that cover `length`, neighbours sharing `overlap` or more.

    All are multiples of `unit`. Without an `offset` they are spread evenly; with one, less than
    size - overlap, they begin so much sooner, but for those at the edges, which stay inside.
    """
    step = size - overlap
    if not 0 <= overlap < size or step % unit or (size < length and (length - size) % unit):
        raise LayoutError(
            f"tiles of {size} cells that overlap by {overlap} in {length}: the overlap is less "
            f"than a tile, and all are multiples of {unit}"
        )
    if size >= length:
        return (0,)
    last = length - size
    if offset is None:
        gaps = -(-last // step)
        return tuple(round(Fraction(i * last, gaps * unit)) * unit for i in range(gaps + 1))
    starts = (i * step - offset for i in range(-(-(last + offset) // step) + 1))
    return tuple(dict.fromkeys(min(max(start, 0), last) for start in starts))
