"""Waiting for a store that another process draws, no longer than there is hope."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .errors import StoreError
from .journal import Journal

if TYPE_CHECKING:
    from .pixels import BlockId
    from .store import Store


# Whether to wait for what is not drawn yet: no, yes, or until the event is set.
Follow = bool | threading.Event


class Follower:
    """Paces a reader by the journal: looks every `poll` seconds, if it is to `wait` at all.

    No faster than the journal's own pace. Hope ends after `patience` seconds without an event
    and without a driver at work, or with the event that `wait` is.
    """

    def __init__(self, journal: Journal, *, wait: Follow, poll: float, patience: float) -> None:
        self._journal = journal
        self._wait = bool(wait)
        self._end = wait if isinstance(wait, threading.Event) else threading.Event()
        self._poll = max(poll, journal.pace)
        self._patience = patience
        self._seen = journal.size
        self._since = time.monotonic()

    def pause(self) -> bool:
        """Sleep until the next look; False when there is no point in one."""
        if not self._wait:
            return False
        size = self._journal.size
        if size != self._seen or self._journal.is_claimed():
            self._seen, self._since = size, time.monotonic()
        elif time.monotonic() - self._since > self._patience:
            return False
        return not self._end.wait(self._poll)


def in_order(store: Store, rows: int, follower: Follower) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of `rows` rows from the top down, each once the journal has all of its blocks."""
    done: frozenset[BlockId] = frozenset()
    height = store.layout.height
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        needed = store.layout.ids(top, bottom)
        while not done.issuperset(needed):
            done = store.done()
            if not done.issuperset(needed) and not follower.pause():
                raise unfinished(store)
        yield top, store.read_rows(top, bottom)


def frames_in_order(store: Store, follower: Follower) -> Iterator[tuple[int, np.ndarray]]:
    """A clip's frames, whole and one after another, each once the journal has all its blocks."""
    done: frozenset[BlockId] = frozenset()
    layout = store.layout
    for frame in range(layout.frames or 0):
        needed = layout.ids(0, layout.height, frame)
        while not done.issuperset(needed):
            done = store.done()
            if not done.issuperset(needed) and not follower.pause():
                raise unfinished(store)
        yield frame, store.read_rows(0, layout.height, frame=frame)


def unfinished(store: Store) -> StoreError:
    """The error of asking for what is not drawn yet."""
    done, total = len(store.done()), store.layout.num_blocks
    return StoreError(
        f"{store.path} is not finished ({done} of {total} blocks); resume it first, "
        "or follow it while it is drawn"
    )
