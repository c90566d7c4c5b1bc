"""A render that grows while it draws, when the cluster does, and shrinks when a node leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.drawing import draw, grey_levels, pixels
from support.fake_nodes import growing_cluster
from tolerances import GREY_LEVELS

WIDE: dict[str, Any] = {"chunk": 64, "num_inference_steps": 120}

# Steps are waited for where something is to happen, so that a slow machine draws no faster than
# its cluster grows. The spot notice is what a provider's node agent sends to Ray.
RENDER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import environment
import ray
from support.drawing import small_spec
from frieze.renderer import render
from test_elastic import WIDE

nodes, noticed = [], []

def listen(event):
    print(event.to_json(), flush=True)
    if "workers" in event.facts:
        nodes[:] = event.facts["workers"]

def notice():
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gcs = ray._private.worker.global_worker.gcs_client
    others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != {head!r}]
    deadline = int((time.time() + 600) * 1000)
    noticed.append(gcs.drain_node(others[0], reason, "spot", deadline))

def after_step(handle, step, timestep, _):
    if not noticed and len(nodes) == 3:
        notice()
    if step < 100 and not (noticed and len(nodes) == 2):
        time.sleep(1.5)

spec = small_spec(Path({path!r}), **WIDE, local=False, workers="1..3", address={address!r})
render(spec, on_event=listen, callback_on_step_end=after_step)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_picture_is_drawn_by_one_then_three_then_two_workers(tmp_path: Path) -> None:
    from support.fake_nodes import HEAD_NODE_ID

    path = tmp_path / "a.zarr"
    with growing_cluster(most_workers=2) as address:
        code = RENDER.format(
            tests=str(Path(__file__).parents[2]), path=str(path), address=address, head=HEAD_NODE_ID
        )
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    sizes = [len(event["workers"]) for event in events if "workers" in event]
    print(*(event["message"] for event in events if event["event"] == "resized"), sep="; ")
    assert sizes[0] == 1
    widest = sizes.index(3)
    assert sizes[: widest + 1] == sorted(sizes[: widest + 1])
    assert sizes[widest + 1] == 2
    assert not [event for event in events if event["event"] == "failure"]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == list(range(1, 121))  # none was lost, and none done twice
    draw(tmp_path / "fixed.zarr", **WIDE, workers=2)
    assert grey_levels(pixels(path), pixels(tmp_path / "fixed.zarr")) <= GREY_LEVELS
