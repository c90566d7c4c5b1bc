"""Whose turn it is: among jobs of one priority every owner has one after another.

Start-time fair queueing (Goyal, Vin, Cheng 1996) with pictures as lengths: a job's turn is where
its owner's job before ends, or the turn that is being drawn, whichever is later. So somebody with
one picture waits for one of each other, however many those have. Turns are numbers in the records
of jobs, so that they outlive the server.
"""

from __future__ import annotations

from collections.abc import Iterable

from .job import Job


class Turns:
    """The turns that are over, by priority and owner."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}
        self._ends: dict[tuple[int, str], int] = {}

    def of(self, job: Job, waiting: Iterable[Job]) -> int:
        """The turn of a new job behind those that wait."""
        own = (each for each in waiting if (each.priority, each.owner) == _whose(job))
        last = max((each.end_of_turn for each in own), default=0)
        return max(last, self._ends.get(_whose(job), 0), self._now.get(job.priority, 0))

    def begin(self, job: Job) -> None:
        """A job is drawn from now on."""
        whose = _whose(job)
        self._now[job.priority] = max(self._now.get(job.priority, 0), job.turn)
        self._ends[whose] = max(self._ends.get(whose, 0), job.end_of_turn)


def _whose(job: Job) -> tuple[int, str]:
    return job.priority, job.owner
