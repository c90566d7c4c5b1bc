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
