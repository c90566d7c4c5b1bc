"""A worker host in a Ray actor, and what travels between it and the driver."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import Any

from ..comm import rendezvous
from ..comm import worlds as comms
from ..fleet import FleetError, Report, WorkerHost, failure


class WorkerActor(WorkerHost):
    """A worker host in a process of its own, an actor that is not restarted.

    Groups follow one another in it, and each has a number. What was asked for in an earlier
    group, and comes late, is not done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._keeping = threading.Lock()
        self._kept: tuple[int, Any] = (0, None)

    def job(self, number: int, name: str, args: tuple[Any, ...]) -> Iterator[Report]:
        """One of the host's jobs for a group, its reports made fit to travel."""
        if number < self._number:
            yield Report("error", FleetError(f"group {number} has ended"))
            return
        for report in getattr(self, name)(*args):
            yield portable(report)

    def prepare(self, worker: type, args: tuple[Any, ...], verb: str | None) -> None:
        """Builds the worker and runs a verb of it, alone, before there is a group for it."""
        self._worker = worker(*args)
        if verb is not None:
            self._worker.join(comms.solo())
            getattr(self._worker, verb)()

    def whereabouts(self) -> tuple[str, int, str, str]:
        """The node's address, this process, Ray's name of the node, and the code's version."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return ray.util.get_node_ip_address(), os.getpid(), node, version()

    def rendezvous(self, number: int, question: str, args: tuple[Any, ...]) -> Any:
        """What the store says that a group meets in, of which this actor is rank 0."""
        return rendezvous.answer(self._store_of(number), question, args)

    def meet(
        self, number: int, rank: int, size: int, first: Any, how: dict[str, Any]
    ) -> Iterator[Report]:
        """Joins a group of ranks, which meet in the process of the `first`, over Ray's calls."""
        self._number = number
        try:
            comm = comms.solo() if size == 1 else self._group(rank, size, first, how)
        except Exception as error:  # the boundary between a rank and its driver
            yield failure(error)
        else:
            yield from self.join(comm)

    def _group(self, rank: int, size: int, first: Any, how: dict[str, Any]) -> comms.Comm:
        import ray

        number = self._number
        if rank == 0:
            store = self._store_of(number)
        else:
            store = rendezvous.RemoteStore(partial(_ask, first, number))
        here = {"address": ray.util.get_node_ip_address()} | how
        return comms.distributed(rank, size, store=store, **here)

    def _store_of(self, number: int) -> Any:
        """The store of a group; the groups before it have none any more."""
        with self._keeping:
            kept, store = self._kept
            if number < kept:
                raise FleetError(f"group {number} has ended")
            if number > kept:
                store = rendezvous.store()
                self._kept = number, store
            return store

    def abort(self, reason: str, number: int = 0) -> None:
        """Breaks the group of that number, if it is still there."""
        if number == self._number:
            super().abort(reason)


def _ask(first: Any, number: int, question: str, *args: Any) -> Callable[[float], Any]:
    """Asks the process of the `first` what a group's store holds; see `rendezvous.Ask`."""
    import ray

    call = first.rendezvous.options(concurrency_group="control").remote(number, question, args)

    def wait(seconds: float) -> Any:
        try:
            return ray.get(call, timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError("timed out") from None
        except ray.exceptions.RayError as error:
            raise ConnectionError(last_line(error)) from None

    return wait


def next_report(stream: Any) -> Report:
    """The next report of a rank; Ray's own errors become reports of a lost rank."""
    import ray

    try:
        report: Report = ray.get(next(stream))
    except StopIteration:
        return Report("lost", "it ended without a result")
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        return replace(failure(cause), trace=str(error))
    except ray.exceptions.RayError as error:
        return Report("lost", last_line(error), trace=str(error))
    return report


def portable(report: Report) -> Report:
    """An error's report with its traceback, and another exception if its own cannot travel."""
    from ray import cloudpickle

    if report.kind != "error":
        return report
    report = replace(report, trace="".join(traceback.format_exception(report.value)).rstrip())
    try:
        cloudpickle.loads(cloudpickle.dumps(report.value))
    except Exception:  # the boundary between a rank and its driver: any error of foreign code
        error = report.value
        return replace(report, value=FleetError(f"{type(error).__qualname__}: {error}"))
    return report


def last_line(error: BaseException) -> str:
    """The first sentence of the last line: in Ray's errors that is the reason."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[-1].split(". ")[0].rpartition(" because ")[2].strip(" .")


def version() -> str:
    try:
        return metadata.version("frieze")
    except metadata.PackageNotFoundError:
        return "unknown"
