"""Whole renders over two hosts: a head in one network namespace, a node in another.

Shapes as in the formulas: S tokens of the canvas, h hidden, N ranks, A = S h b bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frieze.renderer import RenderSpec, render
from frieze.renderer.planning.plan import plan
from frieze.renderer.store.store import Store
from support.drawing import grey_levels, pixels, small_spec
from support.host_cluster import (
    DRAW,
    LIMITS,
    ROOM,
    SIDE,
    SILENCE,
    STEPS,
    Cluster,
    node,
    two_host_cluster,
)
from support.ray_head import JOB_SECONDS, wait_until
from tolerances import GREY_LEVELS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FLOAT32 = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_host_cluster() as cluster:
        yield cluster


def spec(**more: Any) -> RenderSpec:
    """What all of these renders draw."""
    fields = {"height": SIDE, "width": SIDE, "method": "pi", "num_inference_steps": STEPS}
    return small_spec(Path("a.zarr"), **fields, **more)


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("one_host") / "a.zarr"
    render(spec(workers=2).model_copy(update={"out": str(path)}))
    return pixels(path)


def per_step(num_ranks: int, ulysses: int) -> list[float]:
    """Bytes that all ranks send in each step: attention of every layer, and its text rows.

    Of a rank, ring: 2 A (N - 1) / N of keys and values; Ulysses: 4 A (N - 1) / N^2 of queries,
    keys, values and results. Both: each rank tells the N - 1 others what its keys say to the
    text's queries, for every head D numbers and a logarithm.
    """
    made = plan(spec())
    config = json.loads((Path(made.facts.folder) / "transformer" / "config.json").read_text())
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    layers = config["num_layers"] + config["num_single_layers"]
    others = num_ranks - 1
    text = others * heads * made.facts.max_sequence_length * (head_dim + 1) * FLOAT32
    steps = []
    for stage in made.stages:
        patch = made.facts.latent.patch
        tokens = (stage.canvas.height // patch) * (stage.canvas.width // patch)
        activation = tokens * heads * head_dim * FLOAT32
        moved = 4 / num_ranks if ulysses == num_ranks else 2
        rank = layers * (moved * activation * others / num_ranks + text)
        steps += [num_ranks * rank] * stage.num_steps
    return steps


@pytest.mark.parametrize("ulysses", [1, 2], ids=["ring", "ulysses"])
def test_two_hosts_draw_what_one_draws_and_move_what_the_formulas_say(
    cluster: Cluster, one_host: np.ndarray, tmp_path: Path, ulysses: int
) -> None:
    before = [host.sent() for host in cluster.hosts]
    log = cluster.drawn(tmp_path / "a.zarr", "--ulysses", str(ulysses))
    difference = grey_levels(pixels(tmp_path / "a.zarr"), one_host)
    assert difference <= (0 if ulysses == 1 else GREY_LEVELS)
    steps = [event["moved_bytes"] for event in log if event["event"] == "step"]
    assert steps == pytest.approx(per_step(2, ulysses), rel=0.02)
    assert steps != pytest.approx(per_step(3, 1), rel=0.02)
    # Together: three heads are not shared evenly by two ranks.
    assert sum(host.sent() for host in cluster.hosts) - sum(before) > sum(steps)


def states(journal: Path) -> bool:
    """Whether a state was saved."""
    return journal.exists() and b"state" in journal.read_bytes()


def test_a_link_that_drops_in_mid_picture_ends_in_one_line_and_a_store_that_resumes(
    cluster: Cluster, one_host: np.ndarray, tmp_path: Path
) -> None:
    out, second = tmp_path / "a.zarr", cluster.hosts[1]
    journal = out / "frieze" / "journal.jsonl"
    with cluster.frieze(*DRAW, "--out", str(out), *LIMITS) as process:
        wait_until(lambda: process.poll() is not None or states(journal))
        assert process.poll() is None, process.communicate()
        second.unplug()
        began = time.monotonic()
        try:
            _, err = process.communicate(timeout=JOB_SECONDS)
        finally:
            second.plug()
    seconds = time.monotonic() - began
    assert seconds < SILENCE + ROOM + 60, err
    if process.returncode:  # nobody stood in for the other host
        assert process.returncode == 1, err
        (line,) = (line for line in err.splitlines() if line.startswith("frieze: "))
        assert f"finish with: frieze resume {out}" in line
        assert not Store.open(out).is_complete
        with node(cluster.head, second):
            cluster.done("resume", str(out))
    assert grey_levels(pixels(out), one_host) <= GREY_LEVELS
