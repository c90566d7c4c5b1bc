"""Something that a whole process has one of, changed for as long as any of its threads needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class SharedSwitch:
    """A context manager that several threads are in at once: the first turns on, the last off.

    Whoever enters goes on when it is on, whichever thread turned it. One thread may enter twice.
    """

    def __init__(self, turn_on: Callable[[], Callable[[], object]]) -> None:
        """`turn_on` changes what there is one of, and returns what changes it back.

        Where it raises, nothing is on and nobody is inside.
        """
        self._turn_on = turn_on
        self._turn_off: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._num_inside = 0

    def enter(self) -> None:
        """Be inside; whoever enters leaves once, also after an error."""
        with self._lock:
            if not self._num_inside:
                self._turn_off = self._turn_on()
            self._num_inside += 1

    def leave(self) -> None:
        """Be inside no more."""
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._turn_off()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()
