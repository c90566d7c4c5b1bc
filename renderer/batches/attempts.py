"""Attempts at the items of a batch: drawn or gone on with, tried again, settled in the ledger."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from frieze.cluster.comm import CommError
from frieze.cluster.fleet import FleetError

from ..driver.caller import RenderResult
from ..driver.driver import Driver
from ..errors import (
    FriezeError,
    NotFiniteError,
    RenderCancelledError,
    RenderFailedError,
    SpecError,
    line,
)
from ..events import Event
from ..files.operations import is_taken
from ..outputs.signer import Signer
from ..repetition.detect import settled
from .item_states import ItemEvent, ItemResult, ItemStates
from .items import Item, inside
from .scheduling import ScheduledItem
from .time_left import BatchTimeLeft
from .warm_workers import NoWorkersError, WarmWorkers

# Work of an item; before it whatever is wrong would be wrong again.
WORK = frozenset({"stage", "step", "decode", "block", "export"})


class Attempts:
    """Draws items for any lane, and keeps count of how often it tried."""

    def __init__(
        self,
        item_states: ItemStates,
        retries: int,
        on_event: Callable[[ItemEvent], None] | None,
        cancel: threading.Event,
        left: BatchTimeLeft,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self.item_states = item_states
        self.retries = retries
        self.cancel = cancel
        self._on_event = on_event or (lambda event: None)
        self._tries: Counter[str] = Counter()
        self._telling = threading.Lock()
        self._left = left

    def attempt(self, job: ScheduledItem, workers: WarmWorkers) -> ItemResult | None:
        """Draw an item; None if it waits again, because it is to be retried or was stopped."""
        item, began, heard = job.item, time.monotonic(), set[str]()
        self._tries[item.name] += 1

        def on_event(event: Event) -> None:
            heard.add(event.kind)
            self.tell(ItemEvent(item.name, "running", event))

        try:
            drive = Driver(on_event, self.cancel, None, workers, settled, self._signer)
            drawn = self._draw(job, drive)
        except (RenderCancelledError, NoWorkersError) as error:
            self.item_states.enter(item.name, "queued")
            self.tell(ItemEvent(item.name, "queued"))
            if isinstance(error, NoWorkersError):
                self._tries[item.name] -= 1
                raise
            return None
        except Exception as error:  # an item's end, whatever it was, is not the batch's
            again = self._tries[item.name] <= self.retries and _may_pass(error, heard)
            if again and not self.cancel.is_set():
                self.item_states.enter(item.name, "queued")
                self.tell(ItemEvent(item.name, "queued", error=one_line(error)))
                return None
            return self.failed(item, error, time.monotonic() - began)
        return self._done(job, drawn)

    def _draw(self, job: ScheduledItem, drive: Driver) -> RenderResult:
        item = job.item
        for path in item.outputs:  # links may have come since the file was read
            if not inside(self.item_states.root, path):
                raise SpecError(
                    f"{path} leads out of {self.item_states.root} by a link; use another name"
                )
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
        is_begun = self.item_states.is_begun(item.name)
        self.item_states.enter(item.name, "running")
        self.tell(ItemEvent(item.name, "running"))
        if is_begun:
            return drive.go_on(job.plan.spec, item.also)
        return drive.render(job.plan.spec, item.also)

    def _done(self, job: ScheduledItem, drawn: RenderResult) -> ItemResult:
        item = job.item
        result = self._result(item, "done", drawn.seconds)
        self.item_states.settle(result)
        self.tell(ItemEvent(item.name, "done", seconds=drawn.seconds))
        return result

    def failed(self, item: Item, error: Exception, seconds: float) -> ItemResult:
        """An item's end without a picture; of an error that nobody expected the journal has all."""
        result = self._result(item, "failed", seconds, one_line(error))
        trace = None if is_known(error) else "".join(traceback.format_exception(error))
        self.item_states.settle(result, trace)
        self.tell(ItemEvent(item.name, "failed", seconds=seconds, error=result.error))
        return result

    def _result(
        self, item: Item, state: Literal["done", "failed"], seconds: float, error: str | None = None
    ) -> ItemResult:
        return ItemResult(
            name=item.name,
            state=state,
            path=item.main,
            outputs=tuple(path for path in item.outputs if is_taken(path)),
            width=item.spec.width,
            height=item.spec.height,
            seconds=seconds,
            retries=max(0, self._tries[item.name] - 1),
            error=error,
        )

    def tell(self, event: ItemEvent) -> None:
        """One event at a time, whichever lane it comes from."""
        with self._telling:
            left = self._left(event.name, event.state, event.event, event.seconds)
            self._on_event(replace(event, left=left))


def _may_pass(error: Exception, heard: set[str]) -> bool:
    """Whether another attempt may end otherwise: work had begun, or a worker was lost.

    The same numbers come out of the same weights.
    """
    if isinstance(error, NotFiniteError):
        return False
    is_refusal = isinstance(error, FriezeError) and not isinstance(error, RenderFailedError)
    return not is_refusal or bool(heard & WORK)


def is_known(error: Exception) -> bool:
    """Whether an error is one that is told as a line."""
    return isinstance(error, FriezeError | FleetError | CommError)


def one_line(error: Exception) -> str:
    """What is told of an item's error; of one that is not foreseen also what it is."""
    return line(error) if is_known(error) else f"{type(error).__name__}: {line(error)}"
