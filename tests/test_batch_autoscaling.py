"""A batch makes a cluster grow from nothing to what it can use, and shrink when it has ended."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from drawing import PROMPT, draw, pixels
from ray_autoscaling import growing_cluster
from ray_head import BIN, wait_until

NUM_ITEMS, WORKERS = 12, 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twelve_renders_make_three_nodes_come_and_go(tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "out"
    same = {"prompt": PROMPT, "size": "256x256", "num_inference_steps": 40}
    items = [{**same, "name": str(seed), "seed": seed} for seed in range(NUM_ITEMS)]
    jobs.write_text(json.dumps(items))
    with growing_cluster(most=WORKERS) as cluster:
        assert cluster.counts == [0]
        words = ("batch", str(jobs), "--out", str(out), "--workers", str(WORKERS), "--wait", "240")
        ended = subprocess.run(
            [BIN / "frieze", *words, "--address", cluster.address],
            env=cluster.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: cluster.counts[-1] == 0, seconds=120)
    assert max(cluster.counts) == WORKERS, cluster.counts
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["done"] == NUM_ITEMS
    for seed in (0, NUM_ITEMS - 1):
        draw(tmp_path / f"{seed}.zarr", seed=seed, num_inference_steps=40)
        assert np.array_equal(pixels(out / f"{seed}.zarr"), pixels(tmp_path / f"{seed}.zarr"))
    assert not np.array_equal(pixels(out / "0.zarr"), pixels(out / "11.zarr"))  # control
