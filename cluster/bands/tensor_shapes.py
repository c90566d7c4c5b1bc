"""Which tensors are the canvas's on this rank, told by their shapes; and how a band says no.

Shape suffixes: B batch, C channels, T frames, H rows, W columns, S tokens, D features.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..layout import Band, Canvas, TokenGrid


class BandError(RuntimeError):
    """A module does something with rows that a band cannot do exactly."""


def refusal(function: Any, tensors: Any, reason: str) -> BandError:
    """The error for a call of `function` that would leave a seam."""
    shapes = ", ".join(str(tuple(x.shape)) for x in tensors_in(tensors))
    return BandError(f"{getattr(function, '__name__', function)} on {shapes}: {reason}")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or a result; lists, tuples and dicts are searched."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class CanvasShapes:
    """The shapes that this rank's band takes, at any resolution; learnt while layers run.

    A resolution is the ratio of a tensor's rows to the band's latent rows.  Without the latent
    `canvas` its width is learnt from the first convolution or group norm.
    """

    def __init__(self, bands: Sequence[Band], rank: int, canvas: Canvas | None = None) -> None:
        self.bands = tuple(bands)
        self.band = bands[rank]
        self.canvas = canvas
        self.token_counts: set[int] = set()
        self._widths = set() if canvas is None else {Fraction(canvas.width)}
        self._learnt: set[tuple[int, ...]] = set()

    def resolution(self, rows: int) -> Fraction:
        """The resolution at which this band has so many rows."""
        return Fraction(rows, self.band.rows)

    def at(self, resolution: Fraction) -> tuple[Band, ...]:
        """All bands at a resolution; LayoutError where one would end between two rows."""
        return tuple(band.scaled(resolution) for band in self.bands)

    def learn_map(self, x: Tensor) -> None:
        """x [B, C, (T,) H, W] is this band of the canvas."""
        if x.ndim < 4 or x.shape in self._learnt:
            return
        self._learnt.add(x.shape)
        *frames, rows, columns = x.shape[2:]
        self._widths.add(columns / self.resolution(rows))
        self.token_counts |= {rows * columns, rows * columns * (frames[0] if frames else 1)}

    def is_map(self, x: Tensor) -> bool:
        """Is x [B, C, (T,) H, W] as tall and as wide as this band at one resolution?"""
        return x.ndim in (4, 5) and self._is_grid(*x.shape[-2:])

    def row_dims(self, x: Tensor) -> frozenset[int]:
        """The dims along which rows lie: a map's, or tokens' in any dim but the first and last."""
        if self.is_map(x):
            return frozenset({x.ndim - 2})
        if x.ndim in (4, 5) and self._is_grid(*x.shape[-3:-1]):  # [B, (T,) H, W, C]
            return frozenset({x.ndim - 3})
        return frozenset(i for i, n in enumerate(x.shape[:-1]) if i and n in self.token_counts)

    def _is_grid(self, rows: int, columns: int) -> bool:
        """Before any width is known only bands of latent height count."""
        resolution = self.resolution(rows)
        if not self._widths:
            return resolution == 1
        return resolution > 0 and columns / resolution in self._widths

    def tokens_of_all(self, num_tokens: int) -> tuple[int, ...] | None:
        """Tokens of every band when this one has `num_tokens`; None if no patch gives so many.

        Square patches of p x p latents make T W / p^2 tokens of each latent row and T frames.
        """
        return _tokens_of_all(self.bands, self.band, self.canvas, num_tokens)

    def frames_of(self, num_tokens: int) -> int | None:
        """Frames of the band's tokens, the most that square patches make; None if unknown."""
        if self.canvas is None:
            return None
        per_frame = Fraction(num_tokens, self.band.rows) / self.canvas.width
        counts = range(self.canvas.frames, 0, -1)
        return next((t for t in counts if _is_square(per_frame / t)), None)

    def grid_of(self, num_tokens: int) -> TokenGrid | None:
        """Where the band's tokens lie on the canvas; None if no square patch gives so many.

        LayoutError where a band would end between two rows of tokens.
        """
        frames = self.frames_of(num_tokens)
        if frames is None or self.canvas is None:
            return None
        per_cell = Fraction(num_tokens, frames * self.band.rows * self.canvas.width)
        resolution = Fraction(*map(math.isqrt, per_cell.as_integer_ratio()))
        columns = self.canvas.width * resolution
        return TokenGrid(frames, self.at(resolution), int(columns))


@functools.lru_cache(maxsize=256)  # every attention of every step asks, for a few shapes
def _tokens_of_all(
    bands: tuple[Band, ...], own: Band, canvas: Canvas | None, num_tokens: int
) -> tuple[int, ...] | None:
    per_row = Fraction(num_tokens, own.rows)
    counts = [per_row * band.rows for band in bands]
    if num_tokens < 1 or any(count.denominator != 1 for count in counts):
        return None
    if canvas is not None:
        per_frame = per_row / canvas.width
        if not any(_is_square(per_frame / t) for t in range(1, canvas.frames + 1)):
            return None
    return tuple(int(count) for count in counts)


def _is_square(value: Fraction) -> bool:
    return all(math.isqrt(n) ** 2 == n for n in value.as_integer_ratio())
