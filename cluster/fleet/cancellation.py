"""Waits that whoever began them may end: for room, for workers, for what those do before a step.

Loops that wait for a fleet `check()` at every turn. Which event they look at each thread says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_event: ContextVar[threading.Event | None] = ContextVar("cancel", default=None)


class WaitCancelledError(RuntimeError):
    """A wait was ended as asked; no `FleetError`, for nothing is wrong with the fleet."""


@contextmanager
def cancelled_by(event: threading.Event | None) -> Iterator[None]:
    """Waits of this thread inside end when the event is set; with None only by themselves."""
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def check() -> None:
    """Raise `WaitCancelledError` if this thread's waits are to end."""
    event = _event.get()
    if event is not None and event.is_set():
        raise WaitCancelledError("stopped as asked")
