"""Workers that run other code than their driver are sent away, before they draw a row."""

from __future__ import annotations

import pytest

from frieze.cluster.fleet import FleetError
from frieze.cluster.ray import actor_pool
from frieze.cluster.ray.actor_fleet import RayFleet
from support.fleet_workers import Worker
from tolerances import AMPLE


@pytest.mark.ray
def test_a_worker_of_another_version_is_refused(
    ray_cluster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control is every other fleet on Ray."""
    theirs = actor_pool.version()
    monkeypatch.setattr(actor_pool, "version", lambda: "9.9.9")
    with pytest.raises(FleetError, match=f"runs frieze {theirs}, this driver 9.9.9; install one"):
        RayFleet.launch(Worker, 1, 10, timeout=AMPLE)
