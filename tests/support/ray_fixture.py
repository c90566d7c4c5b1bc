"""One private Ray for the whole test run; tests that need Ray take the fixture `ray_cluster`.

They are marked `ray`, which keeps them in one process: others would start a second Ray, or use this
one where it happens to be there.
A process on Ray takes seconds to import torch: `ray_fleet` has two that all tests share.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import pytest

from frieze.cluster.fleet import FleetError
from frieze.cluster.ray import session
from frieze.cluster.ray.actor_fleet import RayFleet
from support.fleet_workers import Worker
from tolerances import AMPLE

FIXTURES = {"ray_cluster", "ray_fleet", "empty_cluster", "_fleets"}
NUM_CPUS = 6  # logical: how many workers of one CPU fit at the same time
BASE = 10


def check_mark(item: pytest.Item) -> None:
    """Fails a test that asks for Ray without the mark, before Ray is started for it."""
    if FIXTURES & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker("ray"):
        unmarked()


def unmarked(*args: object, **options: object) -> NoReturn:
    """What `ray.init` and `ray.remote` are in a test without the mark."""
    pytest.fail("this test uses Ray: mark it with pytest.mark.ray, or its case with marks=")


@pytest.fixture(autouse=True)
def _marked_for_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that uses Ray without the mark `ray` fails.

    One that replaces parts of Ray by its own does not use it.
    """
    if request.node.get_closest_marker("ray"):
        yield
        return
    ray: Any = sys.modules.get("ray")
    if not hasattr(ray, "init"):  # not imported
        yield
        if getattr(sys.modules.get("ray"), "is_initialized", bool)():
            unmarked()
        return
    before = ray.init, ray.remote
    ray.init = ray.remote = unmarked
    try:
        yield
    finally:
        ray.init, ray.remote = before


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[int]:
    """Starts Ray for this process and stops it at the end; gives the number of CPUs it offers."""
    import ray

    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    # Figures reach the metrics endpoint in two seconds, not in ten.
    quick = patch.dict(session.SYSTEM_CONFIG, {"metrics_report_interval_ms": 2000})
    with warnings.catch_warnings(), quick:
        warnings.simplefilter("ignore")  # of a Ray that was late, and lives on until the end
        session.start(
            num_cpus=NUM_CPUS,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2**28,
            # Actors must find the modules that hold the tests' own workers.
            runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1]), **threads}},
        )
        gc.collect()
    yield NUM_CPUS
    ray.shutdown()


@pytest.fixture(scope="session")
def _fleets(ray_cluster: int) -> Iterator[list[RayFleet]]:
    """The one fleet that tests share, once it is there."""
    fleets: list[RayFleet] = []
    yield fleets
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def empty_cluster(ray_cluster: int, _fleets: list[RayFleet]) -> int:
    """A Ray of which all is free: how many CPUs it offers."""
    while _fleets:
        _fleets.pop().close()
    return ray_cluster


@pytest.fixture
def ray_fleet(_fleets: list[RayFleet]) -> Iterator[RayFleet]:
    """Two ranks of base 10 on Ray. A test may break them: the next one has them mended."""
    if not _fleets:
        _fleets.append(RayFleet.launch(Worker, 2, BASE, timeout=AMPLE))
    (fleet,) = _fleets
    yield fleet
    if fleet.has_ended:
        try:
            fleet.recover()
        except FleetError:
            _fleets.clear()
            fleet.close()
