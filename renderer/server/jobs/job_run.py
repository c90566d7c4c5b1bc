"""A job while its pictures are drawn: the plans, the ledger of a batch, the stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...batches import items as batch_items
from ...batches.attempts import Attempts, one_line
from ...batches.item_states import ItemEvent, ItemStates
from ...batches.items import Item
from ...batches.scheduling import ScheduledItem, pack
from ...batches.time_left import BatchTimeLeft
from ...errors import FriezeError
from ...files.folder import Folder
from ...monitoring.time_left import whole_cost
from ...outputs.signer import Signer
from .job import Job


@dataclass(frozen=True)
class Spread:
    """What the server decides for all pictures: how many workers there are, where, who signs.

    `shared` are fields of a spec, which hold whatever requests and presets say.
    """

    workers: int
    shared: Mapping[str, Any]
    ray: bool
    retries: int
    signer: Signer | None = None


def planned(job: Job, root: Path, spread: Spread) -> list[ScheduledItem]:
    """The plans of a job's pictures; raises the `FriezeError` that says why there are none."""
    found = batch_items.read(job.items, root, dict(spread.shared))
    return [pack(item, number, spread.workers) for number, item in enumerate(found)]


class JobRun:
    """The pictures of a job that are not drawn yet, and the ledger that says which are.

    Made on the thread that hands out pictures; `hear` is called from those that draw. Raises
    `FriezeError` where the job cannot be drawn any more.
    """

    def __init__(
        self, job: Job, root: Path, spread: Spread, hear: Callable[[Job, ItemEvent], None]
    ) -> None:
        self.job = job
        self.cancel = threading.Event()
        jobs = planned(job, root, spread)
        Folder(root / "frieze").path.mkdir(exist_ok=True)
        self.states = ItemStates(root, [each.item for each in jobs])
        self.states.look_back(continued=True)
        self.states.begin()
        self.waiting = [j for j in jobs if self.states.states[j.item.name] != "done"]
        self.running = 0
        self.fault: str | None = None
        costs = {j.item.name: (whole_cost(j.plan) / j.width, 1) for j in self.waiting}
        self.attempts = Attempts(
            self.states,
            spread.retries,
            lambda event: hear(job, event),
            self.cancel,
            BatchTimeLeft(costs),
            spread.signer,
        )

    @property
    def has_ended(self) -> bool:
        """Whether no picture of it waits or is drawn."""
        return not self.waiting and not self.running

    def error(self) -> str | None:
        """Why a picture of it failed; None where none did."""
        return self.fault or next(
            (r.error for r in self.states.results.values() if r.state == "failed"), None
        )

    def fail(self, item: Item, error: Exception) -> None:
        """A picture's end without one; the job's, where a full disk has no room to say that."""
        try:
            self.attempts.failed(item, error, 0.0)
        except (FriezeError, OSError) as worse:
            self.fault = one_line(worse)

    def seconds(self) -> float:
        """That its pictures took together."""
        return sum(result.seconds for result in self.states.results.values())

    def close(self) -> None:
        """Let the ledger go, if it is still there."""
        with contextlib.suppress(FriezeError, OSError):
            self.states.journal.release()
