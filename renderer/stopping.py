"""Ctrl-C and SIGTERM: the first asks the work to stop, the second aborts it, the third exits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .events import Event
from .oneline import CANCELLED
from .progress import Progress

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(progress: Progress) -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, the second raises KeyboardInterrupt, the third exits.

    SIGTERM, which `ray job stop` and Kubernetes send, counts as a Ctrl-C.
    """
    cancel = threading.Event()
    notes: list[threading.Thread] = []

    def pressed(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            for stop in STOPS:
                signal.signal(stop, lambda *_: os._exit(CANCELLED))
            raise KeyboardInterrupt
        cancel.set()
        again = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        note = Event("note", message=f"stopping at the next step; {again} again aborts at once")
        # From a thread: the signal may have come while this one was writing to the terminal.
        notes.append(threading.Thread(target=progress, args=(note,), daemon=True))
        notes[0].start()

    before = {stop: signal.signal(stop, pressed) for stop in STOPS}
    try:
        yield cancel
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
        for note in notes:  # what was said first is also read first
            note.join(timeout=5)
