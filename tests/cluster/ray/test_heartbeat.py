"""A rank whose process answers nothing is lost in any verb; one that works is left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from frieze.cluster.fleet import FleetError, WorkerLostError
from frieze.cluster.ray import heartbeat
from frieze.cluster.ray.actor_fleet import RayFleet
from frieze.cluster.ray.actor_pool import MOST_STARTS
from support.fleet_workers import Brittle, Worker, once
from tolerances import AMPLE

FOREVER = 3600.0  # seconds; longer than a test may take
SILENT = 4.0


@pytest.mark.slow
@pytest.mark.ray
def test_a_stopped_rank_is_found_in_a_verb_that_may_take_for_ever(
    ray_cluster: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", SILENT)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 1.0)
    with RayFleet.launch(Worker, 2, timeout=FOREVER) as fleet:
        fleet.all("idle", 1.5 * SILENT)  # the control: nothing is said for longer than that
        stopped = fleet.describe()[1].pid
        begun = once(tmp_path / "begun", lambda: os.kill(stopped, signal.SIGSTOP))
        with pytest.raises(WorkerLostError, match=r"rank 1 .*did not answer for 4 s") as caught:
            fleet.all("stall", 1, FOREVER, begun)
        assert caught.value.rank == 1
        fleet.recover()
        assert stopped not in {place.pid for place in fleet.describe()}
        assert fleet.all("total", 0) == [1, 1]


class Silent:
    """A member that answers so many questions, and no more; an answer is its number, or None."""

    def __init__(self, answers: int) -> None:
        self.answers = answers

    def ask(self, question: str) -> list[bool]:
        assert question == "whereabouts"
        self.answers -= 1
        return [self.answers >= 0]


def test_a_member_that_owes_an_answer_for_too_long_is_silent_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock, without a Ray; of nobody is more asked while a question is open."""
    import ray

    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        ray, "wait", lambda owed, num_returns, timeout: ([each for each in owed if each[0]], [])
    )
    lively, stopped = Silent(1000), Silent(2)
    members: Any = [lively, stopped]
    beat = heartbeat.Heartbeat(limit=10.0)
    seen = []
    for _ in range(10):
        seen.append(beat.silent(members))
        now[0] += heartbeat.BEAT_SECONDS
    # Its third question, after two beats, stays open: six beats on that is longer than the limit.
    assert seen == [[]] * 8 + [[1]] * 2
    assert (1000 - lively.answers, 2 - stopped.answers) == (10, 3)
    now[0] += 4 * heartbeat.BEAT_SECONDS
    assert beat.silent(members) == [], "nobody listened meanwhile: they are asked anew"
    assert beat.silent(members) == [], "between two beats nobody is asked"


def lose_one(fleet: RayFleet, rank: int) -> None:
    os.kill(fleet.describe()[rank].pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        fleet.all("stall", rank, FOREVER)


@pytest.mark.slow
@pytest.mark.ray
def test_newcomers_that_die_as_they_start_are_given_up_after_some(
    ray_cluster: int, tmp_path: Path
) -> None:
    flaw, starts = tmp_path / "flaw", tmp_path / "starts"
    with RayFleet.launch(Brittle, 2, str(tmp_path), timeout=AMPLE, wait=FOREVER) as fleet:
        lose_one(fleet, 1)
        fleet.recover()  # the control: this one starts
        assert fleet.size == 2
        flaw.touch()
        lose_one(fleet, 0)
        fleet.recover()
        assert (fleet.size, starts.read_text()) == (1, "." * MOST_STARTS)
        assert fleet.all("total", 0) == [0]
        lose_one(fleet, 0)
        with pytest.raises(FleetError, match=f"no worker is left, and {MOST_STARTS} starts in a"):
            fleet.recover()
