"""A batch makes a cluster grow from no worker nodes to three, and shrink when it has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from support.drawing import PROMPT, draw, pixels
from support.fake_nodes import HEAD_NODE_ID, growing_cluster
from support.ray_head import BIN, wait_until

NUM_ITEMS, NODES = 12, 3
# Prints how many nodes there are besides the head, whenever that changes; on a busy machine the
# head takes its time.
WATCH = """
import sys, time, ray
while not ray.is_initialized():
    try:
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    except Exception:
        ray.shutdown()
        time.sleep(1)
last = None
while True:
    count = sum(node["Alive"] and node["NodeID"] != sys.argv[2] for node in ray.nodes())
    if count != last:
        print(count, flush=True)
    last = count
    time.sleep(0.2)
"""


@contextmanager
def counted(address: str, environment: dict[str, str]) -> Iterator[list[int]]:
    """The numbers of worker nodes so far, the last one the present one."""
    counts: list[int] = []
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, address, HEAD_NODE_ID],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    lines = watch.stdout
    listener = threading.Thread(target=lambda: counts.extend(map(int, lines)), daemon=True)
    listener.start()
    try:
        wait_until(lambda: counts)
        yield counts
    finally:
        watch.kill()
        watch.wait()
        listener.join(timeout=10)
        lines.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twelve_renders_make_three_nodes_come_and_go(tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "out"
    same = {"prompt": PROMPT, "size": "256x256", "num_inference_steps": 40}
    items = [{**same, "name": str(seed), "seed": seed} for seed in range(NUM_ITEMS)]
    jobs.write_text(json.dumps(items))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with growing_cluster(NODES) as address, counted(address, environment) as counts:
        assert counts == [0]
        # The head has one CPU, each node one more.
        words = ("batch", str(jobs), "--out", str(out), "--workers", str(NODES + 1))
        ended = subprocess.run(
            [BIN / "frieze", *words, "--wait", "300", "--address", address],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: counts[-1] == 0)
    assert max(counts) == NODES, counts
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["done"] == NUM_ITEMS
    for seed in (0, NUM_ITEMS - 1):
        draw(tmp_path / f"{seed}.zarr", seed=seed, num_inference_steps=40)
        assert np.array_equal(pixels(out / f"{seed}.zarr"), pixels(tmp_path / f"{seed}.zarr"))
    assert not np.array_equal(pixels(out / "0.zarr"), pixels(out / "11.zarr"))  # control
