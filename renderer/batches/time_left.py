"""How long a batch still takes: of its items at work as they tell, of the others by their plans."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from ..events import Event
from ..monitoring.time_left import RECENT, Left, of_facts


class BatchTimeLeft:
    """The time left of a batch; hears what happens to its items, from one thread at a time.

    `jobs` are the operations of each item to be drawn, and how many such are drawn side by side.
    What an item took, loading and encoding included, is what others of as many operations will.
    """

    def __init__(
        self,
        jobs: Mapping[str, tuple[float, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs, self._clock = jobs, clock
        self._waiting = set(jobs)
        self._running: dict[str, _Running] = {}
        self._rates: list[float] = []  # seconds of an operation, of items that are done

    def __call__(self, name: str, state: str, event: Event | None, seconds: float) -> Left | None:
        """The time left after what happened to an item; None before anything was measured."""
        if name in self._jobs:
            self._on_event(name, state, event, seconds)
        return self.left()

    def _on_event(self, name: str, state: str, event: Event | None, seconds: float) -> None:
        self._waiting.discard(name)
        if state == "running":
            running = self._running.setdefault(name, _Running(self._clock()))
            told = None if event is None else of_facts(event.facts)
            running.left = running.left if told is None else told.seconds
            return
        self._running.pop(name, None)
        if state == "queued":
            self._waiting.add(name)
        elif state == "done" and seconds and self._jobs[name][0]:
            self._rates = [*self._rates[1 - RECENT :], seconds / self._jobs[name][0]]

    def left(self) -> Left | None:
        """As things stand; None before anything was measured."""
        if not self._waiting and not self._running:
            return Left(0.0)
        rate = self._rate()
        if rate is None:
            return None
        total, longest = 0.0, 0.0
        for name in self._waiting:
            cost, lanes = self._jobs[name]
            total += rate * cost / lanes
        for name, running in self._running.items():
            cost, lanes = self._jobs[name]
            guess = max(0.0, rate * cost - (self._clock() - running.since))
            rest = guess if running.left is None else running.left
            total, longest = total + rest / lanes, max(longest, rest)
        return Left(max(total, longest), "about")

    def _rate(self) -> float | None:
        """Seconds of an operation: of items that are done, or else of those at work."""
        rates = self._rates or [
            (self._clock() - running.since + running.left) / self._jobs[name][0]
            for name, running in self._running.items()
            if running.left is not None and self._jobs[name][0]
        ]
        return statistics.median(rates) if rates else None


class _Running:
    """An item at work: since when, and what it told last of the seconds that are left."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.left: float | None = None
