"""Something that a whole process has once, exchanged for as long as any thread wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Exchange:
    """`change` makes the exchange when the first thread begins, and returns what undoes it.

    That is called when the last thread has ended.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change = change
        self._undo: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._num_open = 0

    def begin(self) -> None:
        with self._lock:
            if self._undo is None:
                self._undo = self._change()
            self._num_open += 1

    def end(self) -> None:
        with self._lock:
            self._num_open -= 1
            if not self._num_open and self._undo is not None:
                undo, self._undo = self._undo, None
                undo()
