"""A fleet: ranks of one worker class that act together on the driver's word.

The driver calls verbs, which are methods of the worker; futures and threads stay in here.
`LocalFleet` runs ranks as threads of this process, `SoloFleet` one rank on the driver's own thread,
`RayFleet` (cluster/ray/actor_fleet.py) ranks as Ray actors.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from . import cancellation
from .failures import FleetError, root_cause
from .worker_host import RankLocation, Report

POLL_SECONDS = 0.2  # how long the driver waits at a stretch, so that Ctrl-C works at once


T = TypeVar("T")

Call = tuple[str, tuple[Any, ...]]  # a method of `WorkerHost` and its arguments


class Fleet(ABC):
    """Ranks 0 .. size - 1, each holding one worker that was given the group by `join(comm)`.

    A verb that fails anywhere ends the fleet, because its ranks may be in the middle of a
    collective: the others are aborted, and every later verb raises `FleetError` until the fleet
    is recovered. What is raised is the root cause: a worker's own exception with its type and
    message (the rank and the remote traceback are notes), or `WorkerLostError` for a rank that
    died or that stays silent while no rank has reported anything for `timeout` seconds. One verb
    runs at a time.
    """

    # Seconds that ranks may take to say what happened once their group is broken.
    grace = 5.0

    def __init__(self, worker: type, size: int, timeout: float) -> None:
        self.size = size
        self.timeout = timeout
        self._title = worker.__name__
        self._running: str | None = None
        self._ended: str | None = None

    @classmethod
    def run_isolated(cls, function: Callable[..., T], *args: Any) -> T:
        """Runs what takes much memory before a fleet is launched; only the result's is kept.

        Here that is a plain call, and what it left in caches is given back: a process of its own
        would spend seconds on imports to the same end. `RayFleet` takes a process.
        """
        try:
            return function(*args)
        finally:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def all(self, verb: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Runs a verb on all ranks with the same arguments; results in rank order."""
        return self._collect(verb, self._runs(range(self.size), verb, args), timeout)

    def one(self, verb: str, *args: Any, rank: int = 0, timeout: float | None = None) -> Any:
        """Runs a verb on one rank; a verb that communicates must go to `all`, or times out."""
        return self._collect(verb, self._runs([rank], verb, args), timeout)[0]

    def stream(
        self, verb: str, *args: Any, timeout: float | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Runs a generator verb on all ranks; yields (rank, item) as items arrive.

        Starts with the first `next`. Items are not held back when the driver is slow: they
        should be small. Leaving the stream early closes the ranks' generators and ends the
        fleet.
        """
        jobs = self._runs(range(self.size), verb, args, streaming=True)
        for rank, report in self._follow(verb, jobs, timeout):
            if report.kind == "item":
                yield rank, report.value

    def replace_workers(self, worker: type, *args: Any) -> None:
        """Builds a new worker on every rank, in the group that is there; the old ones are gone.

        What the ranks' processes keep, such as loaded weights, is still there.
        """
        ranks = range(self.size)
        self._title = worker.__name__
        self._collect("__init__", dict.fromkeys(ranks, ("build", (worker, args))), None)
        self._collect("join", dict.fromkeys(ranks, ("rejoin", ())), None)

    @property
    def has_ended(self) -> bool:
        """Whether it can run no more verbs."""
        return self._ended is not None

    @abstractmethod
    def describe(self) -> tuple[RankLocation, ...]:
        """Where each rank runs, in rank order."""

    def recover(self) -> None:
        """After a failed verb: a new group of the ranks that are left, with what they hold.

        Where a lost rank can be replaced it is, else `size` is smaller. Nothing of the old group
        runs any more when this returns. Raises `FleetError` if there is no going on, and
        `WorkerLostError` if a rank was lost meanwhile: then it may be tried again.
        """
        raise FleetError("this fleet cannot be mended")

    def should_resize(self, seconds_left: float) -> bool:
        """Whether the rest, which takes so many seconds, should be done by other ranks."""
        return False

    def resize(self) -> None:
        """Between two verbs: the group that `should_resize` had in mind."""
        raise FleetError("this fleet keeps its ranks")

    @abstractmethod
    def close(self) -> None:
        """Ends all ranks and gives back what the fleet took; may be called twice."""

    @abstractmethod
    def _start(self, rank: int, job: Call, title: str) -> None:
        """Starts a job on a rank."""

    @abstractmethod
    def _poll(self, seconds: float) -> Iterable[tuple[int, Report]]:
        """Reports that arrived, waiting at most so long for the first."""

    @abstractmethod
    def _abort(self, reason: str) -> None:
        """Breaks the ranks' group without waiting for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _runs(
        ranks: Iterable[int], verb: str, args: tuple[Any, ...], streaming: bool = False
    ) -> dict[int, Call]:
        return dict.fromkeys(ranks, ("run", (verb, args, streaming)))

    def _collect(self, verb: str, jobs: Mapping[int, Call], timeout: float | None) -> list[Any]:
        reports = self._follow(verb, jobs, timeout)
        done = {rank: report.value for rank, report in reports if report.kind == "done"}
        return [done[rank] for rank in sorted(done)]

    def _follow(
        self, verb: str, jobs: Mapping[int, Call], timeout: float | None
    ) -> Iterator[tuple[int, Report]]:
        """Starts a job on each rank and yields reports until each rank said its last word."""
        if self._ended or self._running:
            state = f"it has ended ({self._ended})" if self._ended else f"{self._running!r} runs"
            raise FleetError(f"the fleet cannot run {verb!r}: {state}")
        self._running = verb
        try:
            for rank, job in jobs.items():
                self._start(rank, job, f"{self._title}.{verb}")
            yield from self._await(set(jobs), verb, self.timeout if timeout is None else timeout)
        except BaseException as error:
            self._end(f"{verb!r} was left with {type(error).__name__}")
            raise
        finally:
            self._running = None

    def _await(self, waiting: set[int], verb: str, limit: float) -> Iterator[tuple[int, Report]]:
        """Reports until no rank is waited for; raises the root cause of what ends it sooner."""
        heard = time.monotonic()
        while waiting:
            cancellation.check()
            for rank, report in self._poll(POLL_SECONDS):
                if report.kind in ("error", "lost"):
                    self._end(f"{verb!r} failed")
                    reports = self._drain({rank: report}, waiting)
                    raise root_cause(verb, reports, waiting, self.describe())
                if report.kind == "done":
                    waiting.discard(rank)
                yield rank, report
                heard = time.monotonic()
            if waiting and time.monotonic() - heard > limit:
                silence = f"no rank reported for {limit:g} s"
                self._end(silence)
                reports = self._drain({}, waiting)
                raise root_cause(verb, reports, waiting, self.describe(), silence)

    def _drain(self, reports: Mapping[int, Report], waiting: set[int]) -> dict[int, Report]:
        """With the last words of ranks that were blocked on others, now that the group is broken.

        Ends when all have said theirs, or one explains the failure, or after `grace` seconds.
        """
        known = dict(reports)
        deadline = time.monotonic() + self.grace
        while waiting - known.keys() and time.monotonic() < deadline:
            if any(report.is_cause for report in known.values()):
                break
            last = ((r, report) for r, report in self._poll(POLL_SECONDS) if report.kind != "item")
            known.update(last)
        return known

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            self._abort(reason)
