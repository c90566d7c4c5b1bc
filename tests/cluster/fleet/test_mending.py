"""After a failure a fleet goes on with the ranks that are left and what they hold."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, SoloFleet, WorkerLostError
from frieze.cluster.ray import actor_pool
from frieze.cluster.ray.actor_fleet import RayFleet
from support.fleet_workers import Worker, once, released
from tolerances import AMPLE

FOREVER = 3600.0  # seconds; longer than a test may take
BRIEF = 0.5  # seconds for a rank that will say nothing
LOST = "was lost in 'stall'"
# Its verb's time is up, or it has not said that it lives: whatever is noticed first.
STOPPED = "(hangs in 'stall'|was lost in 'stall'.*did not answer)"


def pids(fleet: Fleet) -> list[int]:
    return [place.pid for place in fleet.describe()]


def kill_in_a_verb(
    fleet: Fleet, rank: int, sign: int, folder: Path, told: str, timeout: float | None = None
) -> None:
    """One rank dies, or stops, while the others wait for it."""
    pid = pids(fleet)[rank]
    begun = once(folder / "begun", lambda: os.kill(pid, sign))
    with pytest.raises(WorkerLostError, match=rf"rank {rank} .* {told}") as caught:
        fleet.all("stall", rank, FOREVER, begun, timeout=timeout)
    assert caught.value.rank == rank


@pytest.mark.ray
def test_a_killed_rank_is_replaced_and_the_others_keep_what_they_hold(
    ray_fleet: RayFleet, tmp_path: Path
) -> None:
    before = pids(ray_fleet)
    ray_fleet.all("remember", 7)
    kill_in_a_verb(ray_fleet, 1, signal.SIGKILL, tmp_path, LOST)
    with pytest.raises(FleetError, match="has ended"):
        ray_fleet.all("rank")
    ray_fleet.recover()
    after = pids(ray_fleet)
    assert ray_fleet.size == len(after) == 2
    assert len(set(before) & set(after)) == 1
    assert ray_fleet.all("total", 0) == [21, 21]
    kept = [rank for rank, pid in enumerate(after) if pid in before]
    assert [ray_fleet.one("recall", rank=rank) for rank in kept] == [7]


@pytest.mark.ray
def test_a_stopped_rank_is_killed_before_the_others_go_on(
    ray_fleet: RayFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_fleet, "grace", BRIEF)
    monkeypatch.setattr(actor_pool, "HELLO_SECONDS", 5.0)
    stopped, other = pids(ray_fleet)
    # Rank 0 keeps the others' store.
    kill_in_a_verb(ray_fleet, 0, signal.SIGSTOP, tmp_path, STOPPED, timeout=1.0)
    ray_fleet.recover()
    assert not os.path.exists(f"/proc/{stopped}")
    assert other in pids(ray_fleet)
    assert ray_fleet.all("total", 0) == [21, 21]


def test_threads_go_on_after_an_error_and_one_that_hangs_is_the_end() -> None:
    released.clear()
    with LocalFleet.launch(Worker, 2, 10, timeout=AMPLE) as fleet:
        fleet.all("remember", 7)
        with pytest.raises(KeyError, match="no chunk"):
            fleet.all("fail", 1, "no chunk")
        fleet.recover()
        assert fleet.all("recall") == [7, 7]
        assert fleet.all("total", 0) == [21, 21]
        fleet.grace = BRIEF
        with pytest.raises(WorkerLostError, match=r"rank 1 .* hangs"):
            fleet.all("stall", 1, FOREVER, timeout=1.0)
        with pytest.raises(FleetError, match="cannot be replaced"):
            fleet.recover()
        released.set()


def test_one_rank_alone_goes_on_after_an_error() -> None:
    with SoloFleet.launch(Worker, 10) as fleet:
        with pytest.raises(KeyError, match="no chunk"):
            fleet.all("fail", 0, "no chunk")
        fleet.recover()
        assert fleet.all("total", 1) == [11]
