"""A rank's side of a fleet: holds the worker, runs its verbs, reports to the driver."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..comm import Comm, RankLostError


@dataclass(frozen=True)
class Report:
    """What a rank tells the driver; `done`, `error` and `lost` are a rank's last word on a verb."""

    kind: Literal["item", "done", "error", "lost"]
    value: Any = None  # the item, the result, the exception, or why the rank was lost
    is_echo: bool = False  # an error that only says that another rank was lost,
    blames: int | None = None  # and which one, where that is known
    trace: str = ""  # the traceback, where the exception left it behind

    @property
    def is_cause(self) -> bool:
        """Whether this report explains a failure by itself."""
        return self.kind == "lost" or (self.kind == "error" and not self.is_echo)


@dataclass(frozen=True)
class RankLocation:
    """Where a rank runs."""

    rank: int
    node: str
    pid: int
    device: str

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.device}, pid {self.pid} on {self.node})"


class WorkerHost:
    """Holds one rank's worker; every public generator is one job and ends with its last report."""

    def __init__(self) -> None:
        self._worker: Any = None
        self._comm: Comm | None = None
        self._left = threading.Event()

    def build(self, worker: type, args: tuple[Any, ...]) -> Iterator[Report]:
        """Constructs the worker on the rank's own thread."""
        try:
            self._worker = worker(*args)
        except Exception as error:  # the boundary between a rank and its driver
            yield failure(error)
        else:
            yield Report("done")

    def join(self, comm: Comm) -> Iterator[Report]:
        """Hands the worker its group; a later group replaces an earlier one."""
        try:
            if self._comm is not None and self._comm is not comm:
                self._comm.close()
            self._comm = comm
            self._left.clear()
            with comm.turn():
                self._worker.join(comm)
        except Exception as error:  # the boundary between a rank and its driver
            yield failure(error)
        else:
            yield Report("done")

    def rejoin(self) -> Iterator[Report]:
        """Hands the group that is there to a worker built later."""
        assert self._comm is not None, "no group before join"
        yield from self.join(self._comm)

    def run(self, verb: str, args: tuple[Any, ...], streaming: bool) -> Iterator[Report]:
        """Runs one verb; a streaming verb is a generator whose items are reported one by one."""
        assert self._comm is not None, "a verb before join"
        try:
            with self._comm.turn():
                result = getattr(self._worker, verb)(*args)
                if streaming:
                    yield from self._items(result)
                    result = None
        except Exception as error:  # the boundary between a rank and its driver
            yield failure(error)
        else:
            yield Report("done", result)

    def _items(self, items: Iterator[Any]) -> Iterator[Report]:
        with contextlib.closing(items):  # type: ignore[type-var]
            for item in items:
                if self._left.is_set():
                    return
                yield Report("item", item)

    def abort(self, reason: str) -> None:
        """Breaks the group so that a verb blocked in it returns; called from another thread."""
        self._left.set()
        if self._comm is not None:
            self._comm.abort(reason)


class FunctionWorker:
    """A worker for one call, which needs no other rank."""

    def join(self, comm: Comm) -> None:
        """Nobody to talk to."""

    def run_isolated(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's result."""
        return function(*args)


def failure(error: Exception) -> Report:
    """The report of an error, told apart from the echo of another rank's loss."""
    link: BaseException | None = error
    seen = set[int]()  # errors that several ranks raise may lead back to themselves
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, RankLostError):
            return Report("error", error, is_echo=True, blames=link.rank)
        link = link.__cause__ or link.__context__
    return Report("error", error)
