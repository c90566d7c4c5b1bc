"""The jobs of a server: those that wait, in their order, those at work and those that ended.

Every change is on disk before anybody is told of it, so that a process that is killed loses none.
Where the disk takes no more, nothing new is taken or begun, and what has changed is written later.
"""

from __future__ import annotations

import bisect
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from ...batches.item_states import ItemEvent
from ...errors import FriezeError, StoreError
from ...monitoring.time_left import of_facts
from ..api_error import ApiError, public
from .job import Job, JobFolder, JobState, Place, now
from .job_feed import JobEvent, JobFeed
from .turns import Turns

MOST_FINISHED = 4  # in which the colours of latents are looked for
RETRY_SECONDS = 60  # after which a disk that was full may be asked again
TOLD = frozenset({"stage", "step", "decode", "block", "export", "failure", "recovered"})

log = logging.getLogger(__name__)


class JobQueue:
    """All jobs of a folder; safe from any thread."""

    def __init__(self, folder: JobFolder, most: int, owners: int = 1) -> None:
        """Where `most` jobs wait, each of so many `owners` may still have its share of them."""
        self.folder, self.most = folder, most
        self.share = max(1, most // max(1, owners))
        self.feed = JobFeed()
        self.changed = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.progress: dict[str, dict[str, Any]] = {}
        self.cancelled: set[str] = set()  # jobs at work that are to stop
        self._waiting: list[Place] = []
        self._turns, self._number = Turns(), 0
        self._by_key: dict[tuple[str, str], str] = {}
        self._took: list[float] = []
        self._unwritten: dict[str, Job] = {}

    def load(self) -> list[StoreError]:
        """Take up what an earlier server left; returns what cannot be read.

        What was at work waits again, and is gone on with.
        """
        faults = []
        for found in self.folder.jobs():
            if isinstance(found, StoreError):
                faults.append(found)
                continue
            if found.is_cancelled and not found.has_ended:
                found.ended = max(now(), found.created)
                with self.changed:
                    self._enter(found, "cancelled")
            elif not found.has_ended:
                found.state = "queued"
                self._waiting.append(found.place)
            elif found.state != "cancelled":
                self._turns.begin(found)
            self._keep(found)
        self._waiting.sort()
        return faults

    def check_room(self, owner: str) -> None:
        """Raise `ApiError` 429 where as many jobs wait as may, and of this owner its share."""
        with self.changed:
            waiting = len(self._waiting)
            own = sum(self.jobs[place[-1]].owner == owner for place in self._waiting)
        if waiting >= self.most and own >= self.share:
            raise ApiError(
                429,
                f"{waiting} jobs wait, and no more may; try again later",
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": str(self._seconds_per_job())},
            )

    def submit(self, job: Job) -> None:
        """A new job, on disk when this returns; raises `ApiError` 429 or 507.

        Its caller submits no two at once.
        """
        self.check_room(job.owner)
        with self.changed:
            job.number = self._number + 1
            job.turn = self._turns.of(job, (self.jobs[place[-1]] for place in self._waiting))
        try:
            self.folder.write(job)
        except (FriezeError, OSError) as error:
            raise ApiError(
                507,
                f"the job cannot be kept: {error}; try again later",
                kind="server_error",
                code="no_space",
                headers={"Retry-After": str(RETRY_SECONDS)},
            ) from error
        with self.changed:
            self._keep(job)
            bisect.insort(self._waiting, job.place)
            self.changed.notify_all()

    def of_key(self, owner: str, key: str) -> Job | None:
        """The job that was submitted with this key."""
        with self.changed:
            return self.jobs.get(self._by_key.get((owner, key), ""))

    def find(self, job_id: str, owner: str) -> Job:
        """A job of this owner; raises `ApiError` 404."""
        with self.changed:
            job = self.jobs.get(job_id)
        if job is None or job.owner != owner:
            raise ApiError(404, "there is no such job", param="id", code="not_found")
        return job

    def owned(self, owner: str) -> list[Job]:
        """The jobs of an owner, the newest first."""
        with self.changed:
            found = [job for job in self.jobs.values() if job.owner == owner]
        return sorted(found, key=lambda job: job.age, reverse=True)

    def finished(self, model: str) -> list[Path]:
        """Stores of the newest pictures that a model has drawn."""
        with self.changed:
            done = [j for j in self.jobs.values() if (j.model, j.state) == (model, "completed")]
        newest = sorted(done, key=lambda job: job.age, reverse=True)[:MOST_FINISHED]
        return [self.folder.of(job) / "0.zarr" for job in newest]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self.changed:
            return dict(Counter(job.state for job in self.jobs.values()))

    def first(self) -> Job | None:
        """The job that is drawn next; the caller holds `changed`."""
        return self.jobs[self._waiting[0][-1]] if self._waiting else None

    def take(self, job: Job) -> bool:
        """Whether a job that waits is at work from now on; its caller holds `changed`.

        It waits on where its record cannot be written: what is drawn needs the disk too.
        """
        job.state = "in_progress"
        if not self._write(job):
            job.state = "queued"
            return False
        self._waiting.remove(job.place)
        self._turns.begin(job)
        self._tell(job)
        return True

    def write_again(self) -> None:
        """Records that could not be written when they changed."""
        with self.changed:
            for job in list(self._unwritten.values()):
                self._write(job)

    def put_back(self, job: Job) -> None:
        """A job at work waits again: the server stops."""
        with self.changed:
            bisect.insort(self._waiting, job.place)
            self._enter(job, "queued")

    def end(self, job: Job, state: JobState, error: str | None = None, seconds: float = 0) -> None:
        """A job's end."""
        with self.changed:
            job.ended, job.seconds = max(now(), job.created), seconds
            job.error = None if error is None else public(error)
            self.cancelled.discard(job.id)
            if state == "completed":
                self._took = [*self._took[-7:], seconds]
            self._enter(job, state)
            self.progress.pop(job.id, None)

    def cancel(self, job: Job) -> None:
        """Stop a job: at once if it waits, at its next step if it is at work."""
        with self.changed:
            if job.state == "queued":
                self._waiting.remove(job.place)
                job.ended = max(now(), job.created)
                self._enter(job, "cancelled")
            elif job.state == "in_progress":
                job.is_cancelled = True
                self._write(job)
                self.cancelled.add(job.id)
            self.changed.notify_all()

    def discard(self, job: Job) -> list[str]:
        """Forget a job that has ended, and delete its files; returns the names that stay."""
        with self.changed:
            self.jobs.pop(job.id, None)
            self._unwritten.pop(job.id, None)
            self._by_key.pop((job.owner, job.key), None)
        return self.folder.discard(job.id)

    def hear(self, job: Job, event: ItemEvent) -> None:
        """What a picture's render tells, for those who wait."""
        told = event.event
        if told is None or told.kind not in TOLD:
            return
        left = of_facts(told.facts)
        names = ("stage", "num_stages", "step", "num_steps", "blocks", "num_blocks")
        data: dict[str, Any] = {"picture": int(event.name), "doing": told.kind}
        data |= {name: value for name in names if (value := getattr(told, name))}
        data |= {} if left is None else {"seconds_left": round(left.seconds, 1)}
        self.progress[job.id] = data
        self.feed.publish(job.id, JobEvent(f"job.{told.kind}", {"id": job.id, **data}))

    def as_json(self, job: Job) -> dict[str, Any]:
        """The object of a job, and how far it is."""
        ahead = None
        with self.changed:
            if job.state == "queued":
                ahead = bisect.bisect_left(self._waiting, job.place)
        return job.as_json() | {"progress": self.progress.get(job.id), "ahead": ahead}

    def _keep(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._number = max(self._number, job.number)
        if job.key:
            self._by_key[job.owner, job.key] = job.id

    def _enter(self, job: Job, state: JobState) -> None:
        job.state = state
        self._write(job)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        """Those who wait, of the state that a job has entered."""
        self.feed.publish(job.id, JobEvent(f"job.{job.state}", job.as_json()))
        self.changed.notify_all()

    def _write(self, job: Job) -> bool:
        """Whether a job's record is written, or its folder is gone, which no wait brings back."""
        try:
            self.folder.write(job)
        except (FriezeError, OSError) as error:
            if self.folder.root.is_dir() and not self.folder.of(job).is_dir():
                self._unwritten.pop(job.id, None)
                return True
            if job.id not in self._unwritten:
                log.warning("the record of %s waits: %s", job.id, public(error))
            self._unwritten[job.id] = job
            return False
        self._unwritten.pop(job.id, None)
        return True

    def _seconds_per_job(self) -> int:
        return max(1, round(sum(self._took) / len(self._took))) if self._took else 5
