"""Waiting for a store that another process draws, no longer than there is hope."""

from __future__ import annotations

import threading
import time

from ..journal.journal import Journal

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
