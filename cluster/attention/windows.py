"""Windows of a canvas: which tokens attend to each other, in integers alone.

A window is a range of rows times a range of columns.  `range(s, s + H // 2)` taken round the edge
is a shifted window (Liu et al. 2021, arXiv 2103.14030; HiDiffusion, arXiv 2311.17528),
`range(-3, 61)` that hangs over the edge is a displaced window of the trained size (FreeScale,
arXiv 2412.09626), `range(i, H, s)` is one of its interleaved sub-grids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..comm.selection import progression
from ..layout import Band, LayoutError

# Beyond the edge a window goes on at the other side, ends, or holds keys and values of zero.
Edge = Literal["wrap", "cut", "zeros"]


@dataclass(frozen=True)
class Window:
    """Rows times columns, in token units of one layer's whole canvas."""

    rows: range
    columns: range


class Stack(NamedTuple):
    """Windows on the same rows of the canvas, with as many columns each."""

    rows: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]
    num_zeros: int  # of each window and frame: keys of zero beyond the canvas


@dataclass(frozen=True)
class Windows:
    """Windows that overlap or not; a token that lies in several gets the mean of its answers."""

    windows: tuple[Window, ...]
    edge: Edge = "cut"

    @staticmethod
    def product(rows: Iterable[range], columns: Iterable[range], edge: Edge = "cut") -> Windows:
        """Every range of rows times every range of columns, row by row."""
        columns = tuple(columns)
        return Windows(tuple(Window(r, c) for r in rows for c in columns), edge)

    def on_canvas(self, span: range, length: int) -> tuple[int, ...]:
        """The places of a window's side that the canvas has, ascending.

        LayoutError if a side that goes round the edge would meet itself.
        """
        if self.edge != "wrap":
            return tuple(i for i in span if 0 <= i < length)
        found = tuple(i % length for i in span)
        if len(set(found)) < len(found):
            raise LayoutError(f"a window over {span} goes round {length} rows or columns twice")
        return tuple(sorted(found))

    def rows_needed(self, band: Band, height: int) -> tuple[int, ...]:
        """Rows of all windows in which the band has a row, ascending: those whose keys it asks."""
        needed: set[int] = set()
        for span in self._row_spans:
            rows = self.on_canvas(span, height)
            if any(band.start <= row < band.stop for row in rows):
                needed.update(rows)
        return tuple(sorted(needed))

    def exchanges(self, height: int) -> tuple[Windows, ...]:
        """The windows whose keys are gathered at once.

        Where rows of windows share rows of the canvas, all: each row is sent once.  Where they
        share none, one row of windows after the other sends the same and holds less.
        """
        spans = self._row_spans
        rows = [row for span in spans for row in self.on_canvas(span, height)]
        if len(set(rows)) < len(rows):
            return (self,)
        return tuple(Windows(tuple(self._of_rows(span)), self.edge) for span in spans)

    def stacks(self, height: int, width: int) -> list[Stack]:
        """Windows on the canvas; neighbours of one row of windows and of one size together."""

        def shape(window: Window) -> tuple[range, int, int]:
            columns = window.columns
            return window.rows, len(columns), len(self.on_canvas(columns, width))

        stacks = []
        for (span, num_columns, num_there), run in groupby(self.windows, shape):
            rows = self.on_canvas(span, height)
            beyond = len(span) * num_columns - len(rows) * num_there
            columns = tuple(self.on_canvas(window.columns, width) for window in run)
            stacks.append(Stack(rows, columns, beyond if self.edge == "zeros" else 0))
        return stacks

    def num_pairs(self, band: Band, height: int, width: int) -> int:
        """Pairs of a query of the band and a key of one of its windows, in one frame.

        Attention costs 4 D FLOPs a pair and head; over the whole canvas it is (H W)^2 pairs.
        """
        total = 0
        for window in self.windows:
            rows = self.on_canvas(window.rows, height)
            columns = len(self.on_canvas(window.columns, width))
            own = sum(band.start <= row < band.stop for row in rows)
            total += own * len(rows) * columns**2
        return total

    def counts(self, band: Band, height: int, width: int) -> Tensor:
        """In how many windows each token of the band lies, [h, W]; LayoutError where in none."""
        counts_HW = torch.zeros(band.rows, width, dtype=torch.int32)
        for window in self.windows:
            rows = own_rows(self.on_canvas(window.rows, height), band)
            add_at(counts_HW, rows, self.on_canvas(window.columns, width), 1)
        if not counts_HW.all():
            row, column = (counts_HW == 0).nonzero()[0].tolist()
            raise LayoutError(
                f"row {row + band.start}, column {column} of {height} x {width} tokens lies in no "
                "window; windows must cover the canvas"
            )
        return counts_HW

    @property
    def _row_spans(self) -> tuple[range, ...]:
        return tuple(dict.fromkeys(window.rows for window in self.windows))

    def _of_rows(self, rows: range) -> Iterable[Window]:
        return (window for window in self.windows if window.rows == rows)


def own_rows(rows: Sequence[int], band: Band) -> list[int]:
    """Those of the canvas rows that the band has, counted from its first."""
    return [row - band.start for row in rows if band.start <= row < band.stop]


def add_at(x: Tensor, rows: Sequence[int], columns: Sequence[int], part: Tensor | int) -> None:
    """Adds `part` [..., rows, columns] onto these rows and columns of x [..., H, W], in place."""
    row_run, column_run = progression(rows), progression(columns)
    if row_run is not None and column_run is not None:
        x[..., row_run, column_run] += part
    else:
        at_rows, at_columns = (
            torch.tensor(at, dtype=torch.long, device=x.device) for at in (rows, columns)
        )
        x[..., at_rows[:, None], at_columns] += part
