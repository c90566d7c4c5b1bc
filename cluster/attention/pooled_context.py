"""Windows of a canvas and the blocks that its rest is pooled over, in integers alone.

Either dim of the canvas is cut into blocks, and runs of blocks are windows.  A query asks the
tokens of its own window, and of every block outside it the mean of its keys and of its values,
counted as often as the block has tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import Band, LayoutError
from .windows import Windows


@dataclass(frozen=True)
class PooledDim:
    """One dim: where blocks begin and end, in tokens, and windows, in blocks; both from 0."""

    edges: tuple[int, ...]
    windows: tuple[int, ...]

    def __post_init__(self) -> None:
        blocks, windows = self.edges, self.windows
        ascends = all(a < b for each in (blocks, windows) for a, b in pairwise(each))
        whole = len(blocks) > 1 and windows[-1:] == (len(blocks) - 1,)
        if not (ascends and whole and blocks[0] == windows[0] == 0):
            raise LayoutError(
                f"blocks of edges {blocks} in windows of edges {windows}: both ascend from 0, and "
                "windows end where the blocks do"
            )

    @staticmethod
    def even(length: int, num_blocks: int, window: int) -> PooledDim:
        """So many blocks of nearly one size, in the fewest windows of about `window` tokens."""
        num_blocks = max(1, min(num_blocks, length))
        num_windows = max(1, min(-(-length // window), num_blocks))
        return PooledDim(_even(length, num_blocks), _even(num_blocks, num_windows))

    @property
    def length(self) -> int:
        """Tokens of the dim."""
        return self.edges[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each block."""
        return tuple(b - a for a, b in pairwise(self.edges))

    @cached_property
    def spans(self) -> tuple[range, ...]:
        """The blocks of each window."""
        return tuple(range(a, b) for a, b in pairwise(self.windows))

    def tokens(self, blocks: range) -> range:
        """Those of a run of blocks."""
        return range(self.edges[blocks.start], self.edges[blocks.stop])

    def within(self, band: Band) -> range:
        """The blocks that lie on the band whole."""
        first = next(i for i, edge in enumerate(self.edges) if edge >= band.start)
        last = max(i for i, edge in enumerate(self.edges) if edge <= band.stop)
        return range(first, max(first, last))

    def touching(self, band: Band) -> range:
        """The blocks that have a token on the band."""
        if not band.rows:
            return range(0)
        first = max(i for i, edge in enumerate(self.edges) if edge <= band.start)
        return range(first, next(i for i, edge in enumerate(self.edges) if edge >= band.stop))

    def overlap(self, block: int, band: Band) -> int:
        """Tokens of a block that lie on the band."""
        tokens = self.tokens(range(block, block + 1))
        return len(range(max(tokens.start, band.start), min(tokens.stop, band.stop)))


class PooledStack(NamedTuple):
    """Windows on the same rows, as wide as each other, and what there is outside each of them."""

    columns: tuple[range, ...]
    sizes: tuple[int, ...]  # tokens of a block
    blocks: tuple[Tensor, ...]  # of each of these sizes their numbers, [windows, blocks]


@dataclass(frozen=True)
class PooledContext:
    """What queries see of a canvas: their own window, and the rest of it as means over blocks."""

    rows: PooledDim
    columns: PooledDim
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def windows(self) -> Windows:
        """The windows, each token in one."""
        rows, columns = (
            [dim.tokens(span) for span in dim.spans] for dim in (self.rows, self.columns)
        )
        return Windows.product(rows, columns)

    @property
    def num_blocks(self) -> int:
        """Of the canvas, in one frame."""
        return len(self.rows.sizes) * len(self.columns.sizes)

    @property
    def num_outside(self) -> int:
        """The most blocks that there are outside a window."""
        least = [min(map(len, dim.spans)) for dim in (self.rows, self.columns)]
        return self.num_blocks - math.prod(least)

    @property
    def is_whole(self) -> bool:
        """Whether one window is the canvas, or every block a token: attention is as it was."""
        dims = (self.rows, self.columns)
        return all(len(d.spans) == 1 for d in dims) or all(max(d.sizes) == 1 for d in dims)

    def num_pairs(self, band: Band) -> int:
        """Pairs of a query of the band and a key or block that it asks, in one frame."""
        total = 0
        for rows in self.rows.spans:
            for columns in self.columns.spans:
                tall, wide = self.rows.tokens(rows), self.columns.tokens(columns)
                own = len(range(max(tall.start, band.start), min(tall.stop, band.stop)))
                outside = self.num_blocks - len(rows) * len(columns)
                total += own * len(wide) * (len(tall) * len(wide) + outside)
        return total

    def stacks(self, row: int, device: torch.device) -> tuple[PooledStack, ...]:
        """The windows of a row of windows, those together that see as many of every block size."""
        key = (row, device)
        if key not in self._known:
            found: dict[object, list[tuple[range, dict[int, list[int]]]]] = {}
            for span in self.columns.spans:
                columns, outside = self.columns.tokens(span), self._outside(row, span)
                kind = (len(columns), tuple((n, len(each)) for n, each in outside.items()))
                found.setdefault(kind, []).append((columns, outside))
            self._known[key] = tuple(_stack(each, device) for each in found.values())
        return self._known[key]

    def _outside(self, row: int, columns: range) -> dict[int, list[int]]:
        """The blocks outside a window, row by row of blocks, by how many tokens they have."""
        tall, broad, rows = self.rows.sizes, self.columns.sizes, self.rows.spans[row]
        found: dict[int, list[int]] = {}
        for y, height in enumerate(tall):
            for x, width in enumerate(broad):
                if y not in rows or x not in columns:
                    found.setdefault(height * width, []).append(y * len(broad) + x)
        return {size: found[size] for size in sorted(found)}


def _stack(
    windows: Sequence[tuple[range, dict[int, list[int]]]], device: torch.device
) -> PooledStack:
    sizes = tuple(windows[0][1])
    blocks = tuple(
        torch.tensor([outside[size] for _, outside in windows], device=device) for size in sizes
    )
    return PooledStack(tuple(columns for columns, _ in windows), sizes, blocks)


def straddling(dim: PooledDim, bands: Sequence[Band]) -> list[tuple[int, ...]]:
    """Of every band the blocks that it has a part of."""
    return [tuple(b for b in dim.touching(band) if b not in dim.within(band)) for band in bands]


def _even(length: int, parts: int) -> tuple[int, ...]:
    return tuple(i * length // parts for i in range(parts + 1))
