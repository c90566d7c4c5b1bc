"""One private Ray for the whole test run; tests that need Ray take the fixture `ray_cluster`.

A process on Ray takes seconds to import torch: `ray_fleet` has two that a file's tests share.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from frieze.cluster.fleet import FleetError
from frieze.cluster.ray.actor_fleet import RayFleet
from frieze.cluster.ray.session import start
from support.fleet_workers import Worker
from tolerances import AMPLE

NUM_CPUS = 6  # logical: how many workers of one CPU fit at the same time


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[int]:
    """Starts Ray for this process and stops it at the end; gives the number of CPUs it offers."""
    import ray

    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Ray that was late, and lives on until the end
        start(
            num_cpus=NUM_CPUS,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2**28,
            # Figures reach the metrics endpoint in two seconds, not in ten.
            _system_config={"metrics_report_interval_ms": 2000},
            # Actors must find the modules that hold the tests' own workers.
            runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1]), **threads}},
        )
        gc.collect()
    yield NUM_CPUS
    ray.shutdown()


@pytest.fixture(scope="module")
def _fleets(ray_cluster: int) -> Iterator[list[RayFleet]]:
    """The one fleet that tests of a file share, once it is there."""
    fleets: list[RayFleet] = []
    yield fleets
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def ray_fleet(_fleets: list[RayFleet]) -> Iterator[RayFleet]:
    """Two ranks of base 10 on Ray. A test may break them: the next one has them mended."""
    if not _fleets:
        _fleets.append(RayFleet.launch(Worker, 2, 10, timeout=AMPLE))
    (fleet,) = _fleets
    yield fleet
    if fleet.has_ended:
        try:
            fleet.recover()
        except FleetError:
            _fleets.clear()
            fleet.close()
