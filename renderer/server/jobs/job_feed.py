"""What happens to jobs, from the threads that draw them to the connections that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

MOST_WAITING = 256  # events that a slow reader is told later; then the oldest are left out


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job: `kind` as job.step, and JSON values."""

    kind: str
    data: dict[str, Any]


class Subscription:
    """The events of a job since this was made, in their order; for one reader on its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[JobEvent] = asyncio.Queue(MOST_WAITING)

    def tell(self, event: JobEvent) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop is closed: the server ends
            self._loop.call_soon_threadsafe(self._put, event)

    async def next(self, seconds: float) -> JobEvent | None:
        """The next event; None where none came in so many seconds."""
        try:
            return await asyncio.wait_for(self._events.get(), seconds)
        except TimeoutError:
            return None

    def _put(self, event: JobEvent) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)


class JobFeed:
    """Subscriptions by the job that they are to."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._readers: dict[str, set[Subscription]] = {}

    def publish(self, job_id: str, event: JobEvent) -> None:
        """Tell all who wait for a job."""
        with self._turn:
            readers = list(self._readers.get(job_id, ()))
        for reader in readers:
            reader.tell(event)

    @contextmanager
    def subscribed(self, job_id: str) -> Iterator[Subscription]:
        """Within this, a job's events come to the running loop."""
        reader = Subscription()
        with self._turn:
            self._readers.setdefault(job_id, set()).add(reader)
        try:
            yield reader
        finally:
            with self._turn:
                readers = self._readers[job_id]
                readers.discard(reader)
                if not readers:
                    del self._readers[job_id]
