"""A batch at work: phases in their order, lanes side by side, attempts at each item.

Each lane is a driver thread with workers of its own, which stay from item to item. Only the ledger
is shared, and it alone says what can be gone on with.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

from frieze.cluster.comm import CommError
from frieze.cluster.fleet import FleetError, WaitCancelledError, WorkerLostError, cancelled_by
from frieze.cluster.ray import session

from ..driver.workers import check_room
from ..errors import FriezeError, PlanError, RenderCancelledError, RenderFailedError, SpecError
from ..events import Event
from ..files.folder import Folder
from ..files.location import Location
from ..monitoring import commands
from ..monitoring.time_left import whole_cost
from ..outputs import content_credentials
from ..outputs.contact_sheet import contact_sheet
from ..outputs.signer import Signer
from ..planning import devices
from ..store.directory import store_directory
from .attempts import Attempts
from .item_states import ItemEvent, ItemResult, ItemStates
from .items import Item
from .scheduling import Phase, ScheduledItem, pack, phases
from .time_left import BatchTimeLeft
from .warm_workers import EncodedPrompts, NoWorkersError, WarmWorkers

POLL_SECONDS = 0.2


class Batch:
    """One run over a batch's items."""

    def __init__(
        self,
        title: str | None,
        root: Location,
        items: tuple[Item, ...],
        workers: int,
        *,
        local: bool,
        address: str | None,
        retries: int,
        again: str | None = None,
        signer: Signer | None = None,
    ) -> None:
        """`again` is the command that goes on with it, where that is not `frieze batch`.

        `signer` signs what its items deliver.
        """
        self.signer = signer
        self.title = title
        self.root = root
        self.items = items
        self.workers = workers
        self.local = local
        self.address = address
        self.retries = retries
        self.again = again
        self.ray = devices.on_ray(workers, address, local=local)
        self.item_states = ItemStates(root, items)
        self.jobs: list[ScheduledItem] = []
        self.refused: list[tuple[Item, FriezeError]] = []

    def check(self, *, continued: bool) -> None:
        """Look back and plan; raises what makes the batch useless, and writes nothing."""
        if self.workers < 1:
            raise SpecError(f"workers {self.workers} is less than 1, which is the least")
        place = store_directory(self.root)
        place.reach()
        (place / "frieze").check_files()
        if place.read("frieze/run.json") or (isinstance(place, Folder) and place.path.is_file()):
            raise SpecError(f"{self.root} is no folder for a batch; use another --out")
        self.item_states.look_back(continued=continued)
        for number, item in enumerate(self.items):
            if self.item_states.states[item.name] == "done":
                continue
            try:
                if self.signer is not None:
                    content_credentials.check(item.outputs)
                self.jobs.append(pack(item, number, self.workers))
            except FriezeError as error:
                self.refused.append((item, error))
        if len(self.refused) == len(self.items):
            first, reason = self.refused[0]
            many = f"none of the {len(self.items)} items can be drawn; the first, "
            raise PlanError(f"{many if len(self.items) > 1 else ''}{first.name!r}: {reason}")

    def results(
        self, on_event: Callable[[ItemEvent], None] | None, cancel: threading.Event
    ) -> Generator[ItemResult, None, None]:
        """Draw what is left to draw; the report is written however this ends."""
        ordered = phases(self.jobs, self.workers, one_device=not self.ray)
        left = _left(ordered)
        self.attempts = Attempts(
            self.item_states, self.retries, on_event, cancel, left, self.signer
        )
        self.cancel = cancel
        began = time.monotonic()
        with self._session():
            self.item_states.begin()
            for name, state in self.item_states.states.items():
                self.attempts.tell(ItemEvent(name, state))
            try:
                for item, error in self.refused:
                    yield self.attempts.failed(item, error, 0.0)
                for phase in ordered:
                    if not cancel.is_set():
                        yield from self._phase(phase)
            finally:
                self._account(time.monotonic() - began)
                self.item_states.journal.release()
        if cancel.is_set() and self.item_states.count("queued"):
            raise RenderCancelledError(
                f"stopped as asked; {self.progress()}; {self.how_to_go_on()}"
            )

    def progress(self) -> str:
        """How far the batch is."""
        return f"{self.item_states.count('done')} of {len(self.items)} items are done"

    def how_to_go_on(self) -> str:
        """The end of every message about an unfinished batch."""
        if self.again is not None:
            return f"go on with: {self.again}"
        if self.title is None:
            return "go on with continued=True"
        again = commands.batch(
            self.title,
            str(self.root),
            workers=self.workers if self.workers > 1 else None,
            local=self.local,
            address=self.address,
        )
        return f"go on with: {again}"

    @contextmanager
    def _session(self) -> Iterator[None]:
        """One Ray for all fleets; `PlanError` where it cannot be had."""
        with ExitStack() as stack:
            if self.jobs and self.ray:
                try:
                    stack.enter_context(session.session(self.workers, self.address))
                except FleetError as error:
                    raise PlanError(str(error)) from error
            yield

    # ---- phases and lanes

    def _phase(self, phase: Phase) -> Iterator[ItemResult]:
        prompts, beside = EncodedPrompts(), (phase.num_lanes - 1) * phase.width
        lane_workers = [
            WarmWorkers(prompts, ray=self.ray, beside=beside) for _ in range(phase.num_lanes)
        ]
        try:
            with cancelled_by(self.cancel):
                if self.ray:
                    check_room(phase.jobs[0].plan)
                self._encode(prompts, phase, lane_workers[0])
        except WaitCancelledError:
            return
        except (FleetError, CommError, FriezeError) as error:
            lost: FriezeError = RenderFailedError(f"the prompts could not be encoded: {error}")
            lost = error if isinstance(error, PlanError) else lost
            for job in phase.jobs:
                yield self.attempts.failed(job.item, lost, 0.0)
            return
        lanes = Lanes(phase.jobs, phase.num_lanes)
        if phase.num_lanes == 1:
            yield from self._lane(lanes, lane_workers[0])
        else:
            yield from self._side_by_side(lanes, lane_workers)

    def _encode(self, prompts: EncodedPrompts, phase: Phase, workers: WarmWorkers) -> None:
        """All prompts of a phase, tried anew if their worker is lost."""
        for left in range(self.retries, -1, -1):
            try:
                prompts.encode(phase.jobs, workers)
            except (WorkerLostError, CommError):
                if not left:
                    raise
            else:
                return

    def _lane(self, lanes: Lanes, workers: WarmWorkers) -> Iterator[ItemResult]:
        """The items of one lane, one after another."""
        with closing(workers):
            while not self.cancel.is_set() and (job := lanes.take()) is not None:
                try:
                    result = self.attempts.attempt(job, workers)
                except NoWorkersError as error:
                    self.attempts.tell(
                        ItemEvent(job.item.name, "queued", Event("note", message=str(error)))
                    )
                    if lanes.leave(job):
                        return
                    for rest in (job, *lanes.rest()):
                        yield self.attempts.failed(rest.item, error, 0.0)
                    return
                if result is not None:
                    yield result
                elif not self.cancel.is_set():
                    lanes.put_back(job)

    def _side_by_side(self, lanes: Lanes, lane_workers: list[WarmWorkers]) -> Iterator[ItemResult]:
        """All lanes at once, each driven by a thread."""
        results: queue.SimpleQueue[ItemResult] = queue.SimpleQueue()

        def run(workers: WarmWorkers) -> None:
            for result in self._lane(lanes, workers):
                results.put(result)

        with ThreadPoolExecutor(len(lane_workers), "lane") as pool:
            running: list[Future[None]] = [pool.submit(run, workers) for workers in lane_workers]
            try:
                while running or not results.empty():
                    for ended in [future for future in running if future.done()]:
                        running.remove(ended)
                        ended.result()
                    try:
                        yield results.get(timeout=POLL_SECONDS if running else 0)
                    except queue.Empty:
                        continue
            except BaseException:
                self.cancel.set()
                raise

    def _account(self, seconds: float) -> None:
        """The report, and the contact sheet of all that is done."""
        self.item_states.report(self.title or "", seconds)
        done = [item for item in self.items if self.item_states.states[item.name] == "done"]
        if done:
            stores = [(item.name, item.main.with_suffix(".zarr")) for item in done]
            contact_sheet(stores, self.root / "contact.png")


def _left(ordered: Iterable[Phase]) -> BatchTimeLeft:
    """The time left of a batch, by what each of its items has to compute on its workers."""
    return BatchTimeLeft(
        {
            job.item.name: (whole_cost(job.plan) / phase.width, phase.num_lanes)
            for phase in ordered
            for job in phase.jobs
        }
    )


class Lanes:
    """The jobs of a phase, taken by lanes as they are free."""

    def __init__(self, jobs: tuple[ScheduledItem, ...], num_lanes: int) -> None:
        self._jobs = deque(jobs)
        self._num_lanes = num_lanes
        self._turn = threading.Lock()

    def take(self) -> ScheduledItem | None:
        """The next job; None when there is none, and the lane ends."""
        with self._turn:
            if self._jobs:
                return self._jobs.popleft()
            self._num_lanes -= 1
            return None

    def put_back(self, job: ScheduledItem) -> None:
        """A job that is tried again after the others."""
        with self._turn:
            self._jobs.append(job)

    def leave(self, job: ScheduledItem) -> bool:
        """A lane without workers gives its job back and ends; False if it is the last one."""
        with self._turn:
            if self._num_lanes <= 1:
                return False
            self._num_lanes -= 1
            self._jobs.appendleft(job)
            return True

    def rest(self) -> Iterator[ScheduledItem]:
        """All jobs that are left."""
        with self._turn:
            left, self._jobs = self._jobs, deque()
        yield from left
