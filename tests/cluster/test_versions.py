"""Workers that run other code than their driver are sent away, before they draw a row."""

from __future__ import annotations

import pytest

from fleet_workers import Worker
from frieze.cluster import ray_crew
from frieze.cluster.fleet import FleetError
from frieze.cluster.ray_fleet import RayFleet


def test_a_worker_of_another_version_is_refused(
    ray_cluster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ray_crew.version()
    monkeypatch.setattr(ray_crew, "version", lambda: "9.9.9")
    with pytest.raises(FleetError, match=f"runs frieze {theirs}, this driver 9.9.9; install one"):
        RayFleet.launch(Worker, 1, 10, timeout=60.0)


def test_control_a_worker_of_the_same_version_is_taken(ray_cluster: int) -> None:
    with RayFleet.launch(Worker, 1, 10, timeout=60.0) as fleet:
        assert fleet.all("rank") == [0]
