"""One private Ray for the whole test run; tests that need Ray take the fixture `ray_cluster`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

NUM_CPUS = 6  # logical: how many workers of one CPU fit at the same time


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[int]:
    """Starts Ray for this process and stops it at the end; gives the number of CPUs it offers."""
    import ray

    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=2**28,
        # Figures reach the metrics endpoint in two seconds, not in ten.
        _system_config={"metrics_report_interval_ms": 2000},
        # Actors must find the modules that hold the tests' own workers.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent), **threads}},
    )
    yield NUM_CPUS
    ray.shutdown()
