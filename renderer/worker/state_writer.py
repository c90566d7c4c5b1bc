"""Saved states: written while the next step is computed, each into a slot that nobody needs.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from torch import Tensor

Digests = dict[int, str]  # of files, by the numbers of their chunks


class StateWriter:
    """Writes one copy at a time on a thread of its own; its error is raised by whoever waits."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "frieze-saving")
        self._pending: Future[Digests] | None = None
        self._rows_CTHW = np.empty((0, 0, 0, 0), np.float32)

    def start(self, parts_CTHW: Sequence[Tensor], write: Callable[[np.ndarray], Digests]) -> None:
        """Copy tensors over the same rows, channel after channel, and begin to write the copy."""
        self.settle()
        _, *shape = parts_CTHW[0].shape
        channels = sum(part.shape[0] for part in parts_CTHW)
        if self._rows_CTHW.shape != (channels, *shape):
            self._rows_CTHW = np.empty((channels, *shape), np.float32)
        top = 0
        for part in parts_CTHW:
            self._rows_CTHW[top : top + part.shape[0]] = part.float().cpu().numpy()
            top += part.shape[0]
        self._pending = self._pool.submit(write, self._rows_CTHW)

    def settle(self) -> Digests:
        """Return when what was started is written, with what `write` returned, if there was any.

        Raises what went wrong.
        """
        pending, self._pending = self._pending, None
        return {} if pending is None else pending.result()

    def drop(self) -> None:
        """Wait as well, and forget how it went: the state does not count."""
        pending, self._pending = self._pending, None
        if pending is not None:
            wait([pending])
