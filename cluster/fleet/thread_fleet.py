"""Ranks as threads of this process."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, Self

from ..comm import worlds as comms
from .failures import FleetError
from .fleet import POLL_SECONDS, Call, Fleet
from .worker_host import RankLocation, Report, WorkerHost


class LocalFleet(Fleet):
    """Ranks as threads of this process; each keeps its thread, and so its thread-local state."""

    @classmethod
    def launch(
        cls,
        worker: type,
        size: int,
        *args: Any,
        timeout: float = 600.0,
        turns: bool = True,
        park: Literal["host", "disk"] | None = None,
    ) -> Self:
        """Starts the ranks; with `turns` only one of them computes at a time.

        `park` is where, in turns, the waiting ranks leave their memory: pinned host memory for a
        GPU's, or a scratch file. Then one device draws a canvas larger than its memory.
        """
        fleet = cls(worker, size, timeout)
        fleet._open(worker, args, turns, park)
        return fleet

    def __init__(self, worker: type, size: int, timeout: float) -> None:
        super().__init__(worker, size, timeout)
        self._hosts = [WorkerHost() for _ in range(size)]
        self._comms: tuple[comms.Comm, ...] = ()
        self._group: dict[str, Any] = {}
        self._busy: set[int] = set()
        self._jobs: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(size)]
        self._reports: queue.SimpleQueue[tuple[int, Report]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(rank,), name=f"rank {rank}", daemon=True)
            for rank in range(size)
        ]

    def _open(
        self,
        worker: type,
        args: tuple[Any, ...],
        turns: bool,
        park: Literal["host", "disk"] | None,
    ) -> None:
        self._group = {"timeout": self.timeout, "turns": turns, "park": park}
        comms.call_vector_math()
        for thread in self._threads:
            thread.start()
        try:
            jobs = dict.fromkeys(range(self.size), ("build", (worker, args)))
            self._collect("__init__", jobs, None)
            self._meet()
        except BaseException:
            self.close()
            raise

    def _meet(self) -> None:
        is_alone = self.size == 1
        self._comms = (comms.solo(),) if is_alone else comms.threads(self.size, **self._group)
        jobs = {rank: ("join", (comm,)) for rank, comm in enumerate(self._comms)}
        self._collect("join", jobs, None)

    def recover(self) -> None:
        """A new group of the same threads; raises `FleetError` if one of them hangs or ended."""
        deadline = time.monotonic() + self.grace
        while self._busy and time.monotonic() < deadline:
            list(self._poll(POLL_SECONDS))
        if self._busy or not all(thread.is_alive() for thread in self._threads):
            raise FleetError("threads of this process cannot be replaced")
        self._ended = None
        self._meet()

    def describe(self) -> tuple[RankLocation, ...]:
        """Where each rank runs, in rank order."""
        node, pid = socket.gethostname(), os.getpid()
        return tuple(RankLocation(rank, node, pid, "thread") for rank in range(self.size))

    def close(self) -> None:
        """Ends the threads; one that is deep in a computation ends at its next collective."""
        self._end("closed")
        for jobs in self._jobs:
            jobs.put(None)
        deadline = time.monotonic() + self.grace
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, rank: int) -> None:
        while (job := self._jobs[rank].get()) is not None:
            name, args = job
            try:
                for report in getattr(self._hosts[rank], name)(*args):
                    self._reports.put((rank, report))
            except BaseException as error:  # a thread that ends must say so, like a process
                self._reports.put((rank, Report("lost", f"its thread ended with {error!r}")))
                return

    def _start(self, rank: int, job: Call, title: str) -> None:
        comms.line_up(self._comms[rank : rank + 1] if job[0] != "build" else ())
        self._busy.add(rank)
        self._jobs[rank].put(job)

    def _poll(self, seconds: float) -> Iterator[tuple[int, Report]]:
        try:
            yield self._report(self._reports.get(timeout=seconds))
            while True:
                yield self._report(self._reports.get_nowait())
        except queue.Empty:
            return

    def _report(self, told: tuple[int, Report]) -> tuple[int, Report]:
        if told[1].kind != "item":
            self._busy.discard(told[0])
        return told

    def _abort(self, reason: str) -> None:
        for host in self._hosts:
            host.abort(reason)
