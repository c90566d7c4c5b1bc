"""Jobs drawn on workers that stay warm: the first in the queue as soon as there is room for it.

Each picture is drawn by a thread with workers of its own, which wait with their weights for the
next one of their width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from frieze.cluster.comm import CommError
from frieze.cluster.fleet import FleetError, WaitCancelledError, WorkerLostError, cancelled_by
from frieze.cluster.ray import session

from ...batches.attempts import one_line
from ...batches.item_states import ItemEvent, ItemResult
from ...batches.scheduling import ScheduledItem
from ...batches.warm_workers import EncodedPrompts, WarmWorkers
from ...errors import FriezeError, PlanError
from ...events import Event
from .job import Job
from .job_queue import JobQueue
from .job_run import JobRun, Spread

LOOK_SECONDS = 0.2
MOST_PROMPTS = 64  # of jobs that wait, encoded with the first one's


class Lane:
    """Workers that stay together, and the prompts that they encoded."""

    def __init__(self, width: int, spread: Spread) -> None:
        self.width = width
        self.prompts = EncodedPrompts()
        self.workers = WarmWorkers(
            self.prompts, ray=spread.ray, beside=max(0, spread.workers - width)
        )

    def encode(self, due: list[ScheduledItem]) -> None:
        """Prompts of these pictures, where they are not at hand."""
        if not self.prompts.has(due[0]):
            self.prompts.encode(due, self.workers)


class Drawing:
    """Hands out pictures to lanes until it is told to stop."""

    def __init__(
        self,
        queue: JobQueue,
        spread: Spread,
        address: str | None,
        hear: Callable[[Job, ItemEvent], None],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """`address` is the Ray to draw on; `hear` is told what happens, from any lane.

        `between` is called again and again, between handing out pictures.
        """
        self.queue, self.spread, self.address, self.hear = queue, spread, address, hear
        self.between = between
        self.runs: dict[str, JobRun] = {}
        self._idle: list[Lane] = []
        self._busy: dict[Future[None], int] = {}  # workers of each lane at work

    def run(self, cancel: threading.Event, stopping: threading.Event) -> None:
        """Draw until `cancel` is set, then stop at the next steps; raises `PlanError` without Ray.

        `stopping` is set then. What was being drawn waits in the queue afterwards.
        """
        with self._session(), ThreadPoolExecutor(self.spread.workers, "lane") as pool:
            try:
                while not cancel.is_set():
                    self._look(pool)
            finally:
                stopping.set()
                for run in list(self.runs.values()):
                    run.cancel.set()
                for future in list(self._busy):
                    future.exception()
                self._settle()
                for lane in self._idle:
                    lane.workers.close()

    @contextmanager
    def _session(self) -> Iterator[None]:
        """One Ray for all lanes."""
        try:
            with (
                session.session(self.spread.workers, self.address)
                if self.spread.ray
                else nullcontext()
            ):
                yield
        except FleetError as error:
            raise PlanError(str(error)) from error

    def _look(self, pool: ThreadPoolExecutor) -> None:
        """Begin what there is room for, settle what has ended, wait for what changes."""
        self.queue.write_again()
        self._settle()
        self.between()
        if (due := self._next()) is not None:
            run, picture, lane = due
            run.running += 1
            future = pool.submit(self._draw, run, picture, lane)
            self._busy[future] = lane.width
            future.add_done_callback(self._wake)
            return
        with self.queue.changed:
            self.queue.changed.wait(LOOK_SECONDS)

    def _wake(self, future: Future[None]) -> None:
        with self.queue.changed:
            self.queue.changed.notify_all()

    def _settle(self) -> None:
        """Lanes and jobs that have ended."""
        for future in [each for each in self._busy if each.done()]:
            del self._busy[future]
            future.result()
        for job_id in list(self.queue.cancelled):
            if job_id in self.runs:
                self.runs[job_id].cancel.set()
        for run in list(self.runs.values()):
            if run.running or (run.waiting and not run.cancel.is_set()):
                continue
            self._end(run)

    def _end(self, run: JobRun) -> None:
        """A job whose pictures have all ended, or which was stopped."""
        del self.runs[run.job.id]
        run.close()
        if not run.waiting:
            error = run.error()
            self.queue.end(run.job, "failed" if error else "completed", error, run.seconds())
        elif run.job.id in self.queue.cancelled:
            self.queue.end(run.job, "cancelled", None, run.seconds())
        else:
            self.queue.put_back(run.job)

    def _next(self) -> tuple[JobRun, ScheduledItem, Lane] | None:
        """The picture to begin, and the lane for it; None where none waits or there is no room."""
        busy = sum(self._busy.values())
        if busy >= self.spread.workers or (busy and not self.spread.ray):  # which is one device
            return None
        run = self._first()
        if run is None or not run.waiting:  # an earlier server drew all of it, and was killed then
            return None
        picture = run.waiting[0]
        lane = self._lane(picture.width)
        if lane is None:
            return None
        run.waiting.pop(0)
        return run, picture, lane

    def _first(self) -> JobRun | None:
        """The job whose picture is begun next: one at work before others of its priority."""
        begun = [r for r in self.runs.values() if r.waiting and not r.cancel.is_set()]
        at_work = min(begun, key=lambda run: run.job.place, default=None)
        with self.queue.changed:
            job = self.queue.first()
            if job is None or (at_work and at_work.job.place < job.place):
                return at_work
            if not self.queue.take(job):
                return at_work
        try:
            self.runs[job.id] = run = JobRun(job, self.queue.folder.of(job), self.spread, self.hear)
        except (FriezeError, OSError) as error:
            self.queue.end(job, "failed", one_line(error))
            return None
        return run

    def _lane(self, width: int) -> Lane | None:
        """A lane of so many workers: one that waits, or a new one where there is room for it."""
        for lane in self._idle:
            if lane.width == width:
                self._idle.remove(lane)
                return lane
        free = self.spread.workers - sum(self._busy.values())
        if free < width:
            return None
        while self._idle and free - sum(lane.width for lane in self._idle) < width:
            self._idle.pop(0).workers.close()
        return Lane(width, self.spread)

    # ---- on the thread of a lane

    def _draw(self, run: JobRun, picture: ScheduledItem, lane: Lane) -> None:
        """Draw a picture, or leave it waiting where it was stopped or is to be tried again."""
        is_left = False
        try:
            is_left = self._attempt(run, picture, lane) is None
        except Exception as error:  # one job's end, whatever it was, is not the server's
            run.fail(picture.item, error)
        with self.queue.changed:
            run.running -= 1
            if is_left:
                run.waiting.append(picture)
            self._idle.append(lane)

    def _attempt(self, run: JobRun, picture: ScheduledItem, lane: Lane) -> ItemResult | None:
        name = picture.item.name
        run.attempts.tell(ItemEvent(name, "running", Event("note", message="encoding the prompt")))
        for left in range(self.spread.retries, -1, -1):
            try:
                with cancelled_by(run.cancel):
                    lane.encode(self._alike(run, picture))
                break
            except WaitCancelledError:
                return None
            except (WorkerLostError, CommError):
                if not left:
                    raise
        return run.attempts.attempt(picture, lane.workers)

    def _alike(self, run: JobRun, picture: ScheduledItem) -> list[ScheduledItem]:
        """The picture and others of its job: prompts of one model are encoded together."""
        return [picture, *run.waiting[:MOST_PROMPTS]]
