"""Waits that whoever began them may end: for room, for workers, for what those do before a step.

Loops that wait for a fleet `check()` at every turn. Which event they look at each thread says.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

from ..thread_value import ThreadValue

_event: ThreadValue[threading.Event] = ThreadValue("cancel")


class WaitCancelledError(RuntimeError):
    """A wait was ended as asked; no `FleetError`, for nothing is wrong with the fleet."""


def cancelled_by(event: threading.Event | None) -> AbstractContextManager[None]:
    """Waits of this thread inside end when the event is set; with None only by themselves."""
    return _event.set(event)


def check() -> None:
    """Raise `WaitCancelledError` if this thread's waits are to end."""
    event = _event.get()
    if event is not None and event.is_set():
        raise WaitCancelledError("stopped as asked")
