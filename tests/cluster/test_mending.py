"""After a failure a fleet goes on with the ranks that are left and what they hold."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fleet_workers import Worker, released
from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, WorkerLostError
from frieze.cluster.ray_fleet import RayFleet
from frieze.cluster.solo_fleet import SoloFleet

FOREVER = 600.0  # seconds; longer than a test may take


def pids(fleet: Fleet) -> list[int]:
    return [place.pid for place in fleet.describe()]


def kill_in_a_verb(fleet: Fleet, rank: int, sign: int, timeout: float | None = None) -> None:
    """One rank dies, or stops, while the others wait for it."""
    threading.Timer(0.3, os.kill, (pids(fleet)[rank], sign)).start()
    with pytest.raises(WorkerLostError, match=rf"rank {rank} .*'stall'"):
        fleet.all("stall", rank, FOREVER, timeout=timeout)


@pytest.mark.timeout(120)
def test_a_killed_rank_is_replaced_and_the_others_keep_what_they_hold(ray_cluster: int) -> None:
    with RayFleet.launch(Worker, 3, 10, timeout=60.0) as fleet:
        before = pids(fleet)
        fleet.all("remember", 7)
        kill_in_a_verb(fleet, 1, signal.SIGKILL)
        with pytest.raises(FleetError, match="has ended"):
            fleet.all("rank")
        fleet.mend()
        after = pids(fleet)
        assert fleet.size == len(after) == 3
        assert len(set(before) & set(after)) == 2
        assert fleet.all("total", 0) == [33, 33, 33]
        kept = [rank for rank, pid in enumerate(after) if pid in before]
        assert [fleet.one("recall", rank=rank) for rank in kept] == [7, 7]


@pytest.mark.timeout(120)
def test_a_stopped_rank_is_killed_before_the_others_go_on(ray_cluster: int) -> None:
    with RayFleet.launch(Worker, 2, timeout=60.0) as fleet:
        stopped, other = pids(fleet)
        kill_in_a_verb(fleet, 0, signal.SIGSTOP, timeout=1.0)  # rank 0 keeps the others' store
        fleet.mend()
        assert not os.path.exists(f"/proc/{stopped}")
        assert other in pids(fleet)
        assert fleet.all("total", 0) == [1, 1]


@pytest.mark.timeout(60)
def test_what_was_asked_in_an_earlier_group_is_not_done(ray_cluster: int) -> None:
    """The driver's own guard, as a call that was slow on its way would meet it."""
    with RayFleet.launch(Worker, 1, timeout=60.0) as fleet:
        fleet.all("remember", 1)
        with pytest.raises(KeyError):
            fleet.all("fail", 0, "no chunk")
        fleet.mend()
        number, fleet._number = fleet._number, fleet._number - 1
        with pytest.raises(FleetError, match=rf"group {number - 1} has ended"):
            fleet.all("remember", 2)
        fleet._number = number
        fleet.mend()
        assert fleet.all("recall") == [1]


@pytest.mark.timeout(60)
def test_threads_go_on_after_an_error_and_one_that_hangs_is_the_end() -> None:
    released.clear()
    with LocalFleet.launch(Worker, 2, 10, timeout=1.0) as fleet:
        fleet.all("remember", 7)
        with pytest.raises(KeyError, match="no chunk"):
            fleet.all("fail", 1, "no chunk")
        fleet.mend()
        assert fleet.all("recall") == [7, 7]
        assert fleet.all("total", 0) == [21, 21]
        with pytest.raises(WorkerLostError, match=r"rank 1 .* hangs"):
            fleet.all("stall", 1, FOREVER)
        with pytest.raises(FleetError, match="cannot be replaced"):
            fleet.mend()
        released.set()


def test_one_rank_alone_goes_on_after_an_error() -> None:
    with SoloFleet.launch(Worker, 10) as fleet:
        with pytest.raises(KeyError, match="no chunk"):
            fleet.all("fail", 0, "no chunk")
        fleet.mend()
        assert fleet.all("total", 1) == [11]
