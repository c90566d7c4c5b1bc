"""A fleet of one rank on the driver's own thread."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Generator, Iterator
from typing import Any, Self

from ..comm import worlds as comms
from .fleet import Call, Fleet
from .worker_host import RankLocation, Report, WorkerHost


class SoloFleet(Fleet):
    """One rank on the driver's own thread, as fast as a plain call; nothing can be lost or hang.

    Torch is slower on a second thread of a process: its allocations come from another arena.
    """

    @classmethod
    def launch(cls, worker: type, *args: Any) -> Self:
        """Builds the worker here and gives it a group of one."""
        fleet = cls(worker, 1, timeout=math.inf)
        fleet._collect("__init__", {0: ("build", (worker, args))}, None)
        fleet._collect("join", {0: ("join", (comms.solo(),))}, None)
        return fleet

    def __init__(self, worker: type, size: int, timeout: float) -> None:
        super().__init__(worker, size, timeout)
        self._host = WorkerHost()
        self._reports: Generator[Report, None, None] | None = None

    def recover(self) -> None:
        """The worker is given a group of one again."""
        self._ended = None
        self._collect("join", {0: ("join", (comms.solo(),))}, None)

    def describe(self) -> tuple[RankLocation, ...]:
        """This process."""
        return (RankLocation(0, socket.gethostname(), os.getpid(), "the driver"),)

    def close(self) -> None:
        """Lets a stream that was left early tidy up."""
        self._end("closed")

    def _start(self, rank: int, job: Call, title: str) -> None:
        name, args = job
        self._reports = getattr(self._host, name)(*args)

    def _poll(self, seconds: float) -> Iterator[tuple[int, Report]]:
        assert self._reports is not None
        for report in self._reports:
            yield 0, report

    def _abort(self, reason: str) -> None:
        self._host.abort(reason)
        if self._reports is not None:
            self._reports.close()
