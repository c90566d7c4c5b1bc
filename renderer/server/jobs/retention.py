"""Which jobs that have ended are kept: those of the last days, or so many of them."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass

from ...errors import SpecError, line, shown
from ..api_error import public
from .job import Job, now
from .job_queue import JobQueue

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LOOK_SECONDS = 10.0
# A client that waited may fetch what it waited for, however few are kept.
GRACE_SECONDS = 60.0
MOST_AT_ONCE, MOST_NAMED = 20, 3  # jobs that a look deletes, and names of one line

log = logging.getLogger("frieze.server")


@dataclass(frozen=True)
class Retention:
    """Keep jobs for `seconds` after their end, or the `count` that ended last."""

    text: str
    seconds: float | None = None
    count: int | None = None

    @classmethod
    def of(cls, text: str) -> Retention:
        """Of 7d, 12h or 100; raises `SpecError`."""
        found = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw]?)", text.strip(), re.ASCII)
        if not found:
            raise SpecError(
                f"--keep {shown(text)}: 7d (or m, h, w) keeps jobs so long after their end, and "
                "100 the last so many; at least 1 works"
            )
        number, unit = int(found[1]), found[2]
        return cls(text, number * UNITS[unit]) if unit else cls(text, count=number)

    def over(self, jobs: list[Job], at: float) -> list[Job]:
        """Those of these jobs that are kept no longer, the oldest first; `at` is now."""
        ended = sorted((j for j in jobs if j.has_ended), key=lambda job: (job.ended or 0, job.age))
        if self.count is not None:
            old = ended[: max(0, len(ended) - self.count)]
            return [job for job in old if at - (job.ended or 0) > GRACE_SECONDS]
        return [job for job in ended if at - (job.ended or 0) > (self.seconds or 0)]


class Tidying:
    """Deletes what a retention does not keep, a few jobs at a time, and says so."""

    def __init__(self, queue: JobQueue, retention: Retention | None) -> None:
        self._queue, self._retention = queue, retention
        self._next = 0.0

    def look(self) -> None:
        """Delete what is over, if it was not looked for just now."""
        if self._retention is None or time.monotonic() < self._next:
            return
        with self._queue.changed:
            jobs = list(self._queue.jobs.values())
        over = self._retention.over(jobs, now())
        if done := [job.id for job in over[:MOST_AT_ONCE] if self._discard(job)]:
            more = f" and {len(done) - MOST_NAMED} more" if len(done) > MOST_NAMED else ""
            names = ", ".join(done[:MOST_NAMED])
            log.warning("deleted, as --keep %s says: %s%s", self._retention.text, names, more)
        if len(over) <= MOST_AT_ONCE:
            self._next = time.monotonic() + LOOK_SECONDS

    def _discard(self, job: Job) -> bool:
        """Whether it is gone; a disk that lets nothing be deleted is told, and ends no server."""
        try:
            others = self._queue.discard(job)
        except OSError as error:
            log.warning("%s stays until the server starts anew: %s", job.id, public(error))
            return False
        for name in others:
            log.warning("%s stays in %s: it is not the server's", line(name), job.id)
        return True
