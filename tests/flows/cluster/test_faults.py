"""Workers and drivers that are killed, and what is on disk meanwhile."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frieze.cluster.fleet import LocalFleet, WorkerLostError
from frieze.renderer import Event, RenderFailedError, StoreError, render, resume
from frieze.renderer.driver import verb_timeouts, workers
from frieze.renderer.driver.recovery import MOST_FAILURES
from frieze.renderer.store.store import Store
from frieze.renderer.worker import stage_rows
from frieze.renderer.worker.shard import Shard
from support.drawing import CASCADE, draw, pixels, small_spec
from support.stalled import stalled_render, wait_for
from tolerances import AMPLE

pytestmark = pytest.mark.usefixtures("kept_encoders")
FOREVER = 3600.0  # seconds; longer than a test may take


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    draw(path, **CASCADE, chunk=64)
    return pixels(path)


def test_blocks_appear_while_others_decode_and_a_killed_driver_resumes_to_the_same_bytes(
    tmp_path: Path, undisturbed: np.ndarray
) -> None:
    path = tmp_path / "a.zarr"
    process = stalled_render(path, **CASCADE, chunk=64)
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


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_draw_what_threads_draw(
    tmp_path: Path, undisturbed: np.ndarray, ray_cluster: int
) -> None:
    draw(tmp_path / "a.zarr", **CASCADE, chunk=64, local=False)
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)


# A fleet on Ray replaces a rank in `cluster/fleet/test_mending.py`, and the driver goes on from a
# loss on threads, below: here six processes import torch.
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("deaths", [1, 2], ids=["in a step", "and in a decode"])
def test_lost_workers_are_replaced_and_the_bytes_are_those_of_undisturbed_threads(
    tmp_path: Path,
    undisturbed: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    ray_cluster: int,
    deaths: int,
) -> None:
    """One dies in a step, the other while it decodes: each time the one that is left goes on."""
    # What encodes the prompts is a worker like them, and has tests of its own.
    monkeypatch.setattr(
        workers, "run_isolated", lambda plan, call, *words: LocalFleet.run_isolated(call, *words)
    )
    events: list[Event] = []
    crews: list[list[int]] = []

    def listen(event: Event) -> None:
        events.append(event)
        if "workers" in event.facts:
            crews.append([worker["pid"] for worker in event.facts["workers"]])
        kinds = [each.kind for each in events]
        if event.kind == "step" and kinds.count("step") == 2:
            os.kill(crews[0][1], signal.SIGKILL)
        if event.kind == "block" and kinds.count("block") == 1 and deaths == 2:
            (eldest,) = set(crews[0]) & set(crews[1])
            os.kill(eldest, signal.SIGKILL)

    path = tmp_path / "a.zarr"
    render(small_spec(path, **CASCADE, chunk=64, local=False, timeout=AMPLE), on_event=listen)
    assert np.array_equal(pixels(path), undisturbed)
    recovered = [event for event in events if event.kind == "recovered"]
    assert [len(set(a) & set(b)) for a, b in itertools.pairwise(crews)] == [1] * deaths
    first, *later = (event.message for event in recovered)
    assert re.search(
        r"rank 1 .* was lost in 'step'.*; 2 workers go on with step 2 of stage 1", first
    )
    # On a slow driver its blocks may all be done before the loss is seen, in the verb after.
    pattern = r"rank \d .* was lost in '(decode|memory)'.*; 2 workers go on with what was not"
    assert [bool(re.search(pattern, message)) for message in later] == [True] * (deaths - 1)
    assert recovered[0].facts["steps_redone"] <= 2
    journal = Store.open(str(path)).journal.read()
    ids = [name for event in journal for name in event.get("ids", [])]
    assert len(ids) == len(set(ids)) == 16  # no block was done twice


BROKEN_DISK = StoreError("a.zarr cannot be written: Input/output error")
LOST_WORKER = WorkerLostError("rank 1 (127.0.0.1) was lost in 'step'", rank=1)


def fail_once(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    times: int = 1,
    error: Exception = BROKEN_DISK,
) -> None:
    """The number-th call of a method of `Store`, and some after it, raise what a disk raises."""
    real, calls = getattr(Store, name), []

    def broken(self: Store, *args: object, **more: object) -> object:
        calls.append(name)
        if number <= len(calls) < number + times:
            raise error
        return real(self, *args, **more)

    monkeypatch.setattr(Store, name, broken)


@pytest.mark.parametrize(
    ("name", "number", "error"),
    [("save_latents", 4, LOST_WORKER), ("write_rows", 3, BROKEN_DISK)],
    ids=["a worker", "a disk"],
)
def test_what_is_lost_once_is_recovered_from_to_the_same_bytes(
    tmp_path: Path,
    undisturbed: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    error: Exception,
) -> None:
    fail_once(monkeypatch, name, number, error=error)
    events: list[Event] = []
    spec = small_spec(tmp_path / "a.zarr", **CASCADE, chunk=64)
    render(spec, on_event=events.append)
    (recovered,) = (event for event in events if event.kind == "recovered")
    assert recovered.message.startswith(f"{error}; 2 workers go on with ")
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)


def test_a_store_that_keeps_failing_is_one_error_and_resumes_to_the_same_bytes(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "a.zarr", []
    fail_once(monkeypatch, "save_latents", 4, times=1000)
    with pytest.raises(StoreError, match="Input/output error"):
        render(small_spec(path, **CASCADE, chunk=64), on_event=events.append)
    assert [event.kind for event in events].count("recovered") == MOST_FAILURES - 1
    monkeypatch.undo()
    resume(path)
    assert np.array_equal(pixels(path), undisturbed)


def test_a_workers_own_error_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(self: Shard, *args: object) -> object:
        calls.append(self.comm.rank)
        raise torch.OutOfMemoryError("16 GiB were asked for")

    monkeypatch.setattr(Shard, "step", broken)
    with pytest.raises(torch.OutOfMemoryError, match="16 GiB"):
        draw(tmp_path / "a.zarr")
    assert calls == [0]


@pytest.mark.parametrize("seconds", [0.5, FOREVER])
def test_a_decode_that_hangs_is_found_by_what_steps_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The control decodes slowly, and is left alone."""
    released, quick = threading.Event(), stage_rows.decode

    def slowly(*args: Any, **more: Any) -> Iterator[Any]:
        for item in quick(*args, **more):
            released.wait(seconds)
            yield item

    path, small = tmp_path / "a.zarr", {"width": 64, "workers": 2}
    spec = small_spec(path, **small)
    monkeypatch.setattr(stage_rows, "decode", slowly)
    monkeypatch.setattr(verb_timeouts, "FACTOR", 1.0)
    monkeypatch.setattr(verb_timeouts, "NEW_SECONDS", 5.0)
    monkeypatch.setattr(LocalFleet, "grace", 0.5)  # who hangs says nothing
    if seconds < 1.0:
        render(spec)
        return
    try:
        with pytest.raises(RenderFailedError, match="hangs in 'decode': no rank reported for") as e:
            render(spec)
    finally:
        released.set()
    assert f"resume {path}" in str(e.value)
    draw(tmp_path / "whole.zarr", **small)
    resume(path)
    assert np.array_equal(pixels(path), pixels(tmp_path / "whole.zarr"))
