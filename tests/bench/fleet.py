"""What the driver adds to a step on Ray, and how long a lost worker holds up the others.

Prints a Markdown table. Overhead is the time from the driver's word to the last rank's answer,
for a verb that does nothing; recovery is that of a fleet whose workers load nothing.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

import ray

from frieze.cluster.fleet import WorkerLostError
from frieze.cluster.ray.actor_fleet import RayFleet
from support.fleet_workers import Worker

RANKS = (1, 2, 4)
CALLS = 200


def main() -> None:
    """Fleets of some sizes, then one that loses a rank."""
    ray.init(
        address="local",
        num_cpus=max(RANKS),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=2**28,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}},
    )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load}\n")
    print("| what | ranks | median | bar |\n|---|---|---|---|")
    for size in RANKS:
        with RayFleet.launch(Worker, size) as fleet:
            seconds = statistics.median(overhead(fleet) for _ in range(CALLS))
            print(f"| driver, per step | {size} | {seconds * 1e3:.1f} ms | {5 + size} ms |")
    with RayFleet.launch(Worker, 2) as fleet:
        print(f"| a killed rank, replaced | 2 | {recovery(fleet):.1f} s | |")
    ray.shutdown()


def overhead(fleet: RayFleet) -> float:
    """Seconds of one verb that does nothing."""
    began = time.perf_counter()
    ranks = fleet.all("rank")
    seconds = time.perf_counter() - began
    if ranks != list(range(fleet.size)):
        sys.exit(f"the ranks answered {ranks}; no timing")
    return seconds


def recovery(fleet: RayFleet) -> float:
    """Seconds from a rank's death to a group that works again."""
    began = time.perf_counter()
    os.kill(fleet.describe()[1].pid, signal.SIGKILL)
    try:
        fleet.all("total", 0)
    except WorkerLostError:
        fleet.recover()
    if fleet.all("total", 0) != [1, 1]:
        sys.exit("the mended group adds up wrongly; no timing")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
