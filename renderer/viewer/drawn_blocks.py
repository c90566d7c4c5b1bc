"""Which blocks of a store are drawn, found by their place: a plan may have millions of others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..store.layout import BlockId

Rows = tuple[np.ndarray, np.ndarray]


class DrawnBlocks:
    """The blocks of each frame, in the order of their rows and columns."""

    def __init__(self, ids: Iterable[BlockId]) -> None:
        numbers = [tuple(map(int, each.split("/"))) for each in ids]
        by_frame: dict[int, list[tuple[int, ...]]] = {}
        for *frame, row, column in numbers:
            by_frame.setdefault(frame[0] if frame else 0, []).append((row, column))
        self._frames: dict[int, Rows] = {}
        for frame_number, places in by_frame.items():
            rows, columns = np.array(sorted(places), np.int64).T
            self._frames[frame_number] = rows, columns

    def within(self, frame: int, rows: range, columns: range) -> list[tuple[int, int]]:
        """(row, column) of those in a part of a frame, row by row."""
        if frame not in self._frames:
            return []
        all_rows, all_columns = self._frames[frame]
        first, last = np.searchsorted(all_rows, (rows.start, rows.stop))
        here = all_columns[first:last]
        at = first + np.flatnonzero((here >= columns.start) & (here < columns.stop))
        return list(zip(all_rows[at].tolist(), all_columns[at].tolist(), strict=True))
