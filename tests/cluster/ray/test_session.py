"""The private Ray of a driver: what it starts, and what its start waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

# How many idle workers of this process's Ray live as soon as the driver is in.
SCRIPT = """
import sys
from pathlib import Path
import psutil
from frieze.cluster.ray import session
if sys.argv[1] == "waits":
    session.SYSTEM_CONFIG.clear()
session.start(num_cpus=2, object_store_memory=100 * 2**20, log_to_driver=False, logging_level=40)
names = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
print(sum("default_worker.py" in name.split("--")[0] or "ray::IDLE" in name for name in names))
session.disconnect()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("starts", "workers"), [("alone", 0), ("waits", 2)])
def test_a_start_waits_for_no_worker(starts: str, workers: int) -> None:
    """One that died while it started kept the driver waiting for ever; the control waits."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, starts], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == workers


# The first worker that Ray starts for a fleet is killed after a while.
KILLED = """
import subprocess, sys
from frieze.cluster.fleet import FunctionWorker
from frieze.cluster.ray.actor_fleet import RayFleet
killer = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
with RayFleet.launch(FunctionWorker, 2) as fleet:
    print([where.rank for where in fleet.describe()], fleet.all("run_isolated", len, "abc"))
print("killed" if killer.poll() == 0 else "not killed")
"""
KILLER = """
import os, sys, time
import psutil
while True:
    for process in psutil.Process(os.getppid()).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(word.startswith("ray::IDLE") or "default_worker.py" in word for word in words[:2]):
            time.sleep(float(sys.argv[1]))
            process.kill()
            sys.exit()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.5])
def test_a_fleet_starts_though_its_first_worker_is_killed_as_it_starts(seconds: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, KILLER, str(seconds)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "killed"
    assert "[0, 1] [3, 3]" in done.stdout
