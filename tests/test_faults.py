"""Workers and drivers that are killed, and what is on disk meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drawing import CASCADE, draw, grey_levels, pixels, small_spec
from frieze.renderer import Event, RenderFailedError, render, resume
from frieze.renderer.store import Store
from tolerances import GREY_LEVELS

# A render whose decoding takes its time, so that it can be caught in the middle.
SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from drawing import CASCADE, small_spec
import frieze.renderer.shard as shard
from frieze.renderer import render

quick = shard.decode

def slowly(*args, **more):
    for item in quick(*args, **more):
        yield item
        time.sleep(0.5)

shard.decode = slowly
render(
    small_spec(Path({path!r}), **CASCADE, chunk=64),
    on_event=lambda event: print(event.to_json(), flush=True),
)
"""


def slow_render(path: Path) -> subprocess.Popen[str]:
    code = SLOW.format(tests=str(Path(__file__).parent), path=str(path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], kind: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if f'"event": "{kind}"' in line:
            return
    raise AssertionError(f"the render ended with {process.wait()} before any {kind!r}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    draw(path, **CASCADE, chunk=64)
    return pixels(path)


def test_blocks_appear_while_others_decode_and_a_killed_driver_resumes_to_the_same_bytes(
    tmp_path: Path, undisturbed: np.ndarray
) -> None:
    path = tmp_path / "a.zarr"
    process = slow_render(path)
    try:
        wait_for(process, "block")
        store = Store.open(str(path))
        done = store.done()
        assert process.poll() is None
        assert 0 < len(done) < store.layout.num_blocks
        rows = next(row for row in range(0, 512, 64) if store.covers(done, row))
        assert np.array_equal(pixels(path)[rows : rows + 64], undisturbed[rows : rows + 64])
        assert not np.array_equal(pixels(path), undisturbed)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not Store.open(str(path)).is_complete
    resume(path)
    assert np.array_equal(pixels(path), undisturbed)


def test_ray_workers_draw_what_threads_draw(
    tmp_path: Path, undisturbed: np.ndarray, ray_cluster: int
) -> None:
    draw(tmp_path / "a.zarr", **CASCADE, chunk=64, local=False)
    assert grey_levels(pixels(tmp_path / "a.zarr"), undisturbed) <= GREY_LEVELS


def kill_a_worker(path: Path, step: int) -> None:
    """Render on two Ray workers and kill rank 1 after so many steps."""
    pids: list[int] = []
    steps: list[Event] = []

    def listen(event: Event) -> None:
        if event.kind == "workers":
            pids.extend(worker["pid"] for worker in event.facts["workers"])
        if event.kind == "step":
            steps.append(event)
            if len(steps) == step:
                os.kill(pids[1], signal.SIGKILL)

    with pytest.raises(RenderFailedError, match=r"rank 1.*frieze resume"):
        render(small_spec(path, **CASCADE, chunk=64, local=False), on_event=listen)
    assert len(steps) == step


def test_a_killed_ray_worker_leaves_a_store_that_resumes_to_the_same_bytes(
    tmp_path: Path, ray_cluster: int
) -> None:
    draw(tmp_path / "whole.zarr", **CASCADE, chunk=64, local=False)
    whole = pixels(tmp_path / "whole.zarr")
    kill_a_worker(tmp_path / "a.zarr", step=4)
    resume(tmp_path / "a.zarr")
    assert np.array_equal(pixels(tmp_path / "a.zarr"), whole)
    kill_a_worker(tmp_path / "b.zarr", step=2)
    resume(tmp_path / "b.zarr", workers=3)
    assert grey_levels(pixels(tmp_path / "b.zarr"), whole) <= GREY_LEVELS
