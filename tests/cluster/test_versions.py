"""Workers that run other code than their driver are sent away, before they draw a row."""

from __future__ import annotations

import pytest

from fleet_workers import Worker
from frieze.cluster import ray_crew
from frieze.cluster.fleet import FleetError
from frieze.cluster.ray_fleet import RayFleet
from tolerances import AMPLE


def test_a_worker_of_another_version_is_refused(
    ray_cluster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control is every other fleet on Ray."""
    theirs = ray_crew.version()
    monkeypatch.setattr(ray_crew, "version", lambda: "9.9.9")
    with pytest.raises(FleetError, match=f"runs frieze {theirs}, this driver 9.9.9; install one"):
        RayFleet.launch(Worker, 1, 10, timeout=AMPLE)
