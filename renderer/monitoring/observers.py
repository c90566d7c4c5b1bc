"""Everybody who hears of a render: its caller, the log of its store, and Ray's metrics."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import RenderCancelledError, reason
from ..events import Event, StepReport
from ..files.location import Location
from .metrics import METRICS, Meter
from .prediction import Accuracy
from .run_log import RunLog
from .time_left import TimeLeft, decoding_cost, stages

if TYPE_CHECKING:
    from frieze.cluster.fleet import Fleet, RankLocation

    from ..planning.canvas_plan import CanvasPlan
    from ..store.layout import StoreLayout


class EventFanout:
    """Passes events on, from any thread, one at a time.

    As a context it sees the render end: an error that leaves it is the last line of the log.
    """

    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self._tell = on_event
        self._log = RunLog()
        self._left = TimeLeft()
        self._meter: Meter | None = None
        self._turn = threading.RLock()
        self._has_ended = False

    def __call__(self, event: Event) -> None:
        """Tell the caller last: what it raises must not hide what happened."""
        with self._turn:
            self._has_ended = event.kind in ("done", "ended")
            if (left := self._left(event)) is not None:
                event = replace(event, facts={**event.facts, **left.facts()})
            is_private = event.kind == "plan" or "cut" in event.facts  # has words of the prompt
            logged = replace(event, message="") if is_private else event
            self._log.write(logged.as_json())
            if self._meter is not None:
                self._meter(event)
            if self._tell is not None:
                self._tell(event)

    def keep(self, store_path: Location) -> None:
        """There is a store now, and this process draws it: the log goes there."""
        with self._turn:
            self._log.keep(store_path)

    def leave(self) -> None:
        """The store is gone again, and its log with it."""
        with self._turn:
            self._log.leave()

    def measure(self, render: str) -> None:
        """This process is connected to Ray: figures go to its metrics, tagged with a name."""
        from frieze.cluster.ray.metrics import RayMetrics

        self._meter = Meter(RayMetrics(METRICS, render))

    def predict(self, predicted: Mapping[str, Any]) -> None:
        """The seconds are predicted: the log has them, and the time that is left follows them."""
        with self._turn:
            if self._has_ended:
                return
            self._left.predict(predicted)
            left = self._left.left()
            facts = {"predicted": predicted, **(left.facts() if left else {})}
            self._log.write(Event("note", facts=facts).as_json())

    def accuracy(self) -> Accuracy | None:
        """How the prediction of the seconds was; None where there was none."""
        with self._turn:
            return self._left.accuracy()

    def __enter__(self) -> EventFanout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        is_asked = isinstance(error, (RenderCancelledError, KeyboardInterrupt))
        facts = {"error": type(error).__name__, "is_asked": is_asked}
        self(Event("ended", message=reason(error), facts=facts))


def of_plan(plan: CanvasPlan, *, resumes: bool) -> dict[str, Any]:
    """What a log says of a plan: sizes and counts, nothing of the prompt."""
    spec = plan.spec
    return {
        "resumes": resumes,
        "version": metadata.version("frieze"),
        "versions": {"python": platform.python_version(), **_versions()},
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "size": [spec.width, spec.height],
        "frames": spec.num_frames,
        "stages": stages(plan),
        "decoding_cost": decoding_cost(plan),
        "blocks": plan.num_blocks,
        "num_workers": spec.workers,
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Of the libraries that decide pixels and places."""
    found = {}
    for name in ("torch", "diffusers", "transformers", "ray", "zarr"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def of_workers(places: Sequence[RankLocation]) -> dict[str, Any]:
    """Where each rank runs."""
    return {"workers": [vars(place) for place in places]}


def of_fleet(fleet: Fleet) -> dict[str, Any]:
    """How many workers there are, and where."""
    return {"num_workers": fleet.size, **of_workers(fleet.describe())}


def of_step(reports: Sequence[StepReport], wall: float) -> dict[str, Any]:
    """A step's seconds by part, of the rank that was slowest, and the bytes that were moved.

    `wall` are the driver's seconds from its word to the last rank's answer.
    """
    slowest = max(reports, key=lambda report: report.seconds)
    return {
        "compute": max(0.0, slowest.seconds - slowest.waiting - slowest.saving),
        "exchange": slowest.waiting,
        "saving": slowest.saving,
        "driver": max(0.0, wall - slowest.seconds),
        "moved_bytes": sum(report.bytes_sent for report in reports),
        "ranks": [
            {k: v for k, v in vars(r).items() if v != "" and not isinstance(v, (dict, tuple))}
            for r in reports
        ],
    }


def of_save(layout: StoreLayout, stage_index: int) -> dict[str, Any]:
    """Bytes of one saved state: float32, all ranks together."""
    _, *sides = layout.latents[stage_index].shape
    return {"bytes": 4 * math.prod(sides)}


def of_blocks(layout: StoreLayout, ids: Sequence[str], rank: int, elapsed: float) -> dict[str, Any]:
    """Blocks that a rank finished, and their pixels' bytes before compression.

    `elapsed` are the seconds since the last ones, or since decoding began.
    """
    size = sum(layout.block_bytes(block) for block in ids)
    return {"rank": rank, "new": len(ids), "bytes": size, "elapsed": elapsed}
