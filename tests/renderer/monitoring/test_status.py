"""How a render stands is read from its store, by others, while it is drawn."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contracts.export import make_store, picture
from frieze.renderer import Event, RenderCancelledError, RenderHandle, render, resume
from frieze.renderer.cli import store as looking
from frieze.renderer.monitoring.durations import span
from frieze.renderer.monitoring.report import report
from frieze.renderer.monitoring.status import Status, status
from support.command_line import frieze, process, refused
from support.drawing import CASCADE, small_spec
from support.s3_server import BUCKET, S3Server
from support.stores import aged
from tolerances import AMPLE


def test_another_process_reads_and_follows_a_render_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    readers: list[subprocess.Popen[str]] = []
    seen: list[dict[str, Any]] = []

    def look(handle: RenderHandle, step: int, timestep: float, more: object) -> None:
        if step == 1:
            # Not its lock: POSIX would drop it here when the copied file is closed.
            shutil.copytree(out, tmp_path / "copy.zarr", ignore=shutil.ignore_patterns("lock"))
            reader = process("status", str(out), "--follow", "--json")
            readers.append(reader)
            assert reader.stdout is not None
            seen.append(json.loads(reader.stdout.readline()))

    render(small_spec(out, workers=2), callback_on_step_end=look)
    rest, err = readers[0].communicate(timeout=AMPLE)
    assert (readers[0].returncode, err) == (0, "")
    seen += map(json.loads, rest.splitlines())
    first, last = seen[0], seen[-1]
    assert (first["event"], first["state"]) == ("status", "running")
    place = [first[name] for name in ("stage", "num_stages", "step", "num_steps")]
    assert place == [1, 1, 2, 4]
    assert (first["blocks"], first["num_blocks"]) == (0, 16)
    assert [worker["pid"] for worker in first["workers"]] == [os.getpid()] * 2
    assert first["left"] > 2 * first["seconds_per_step"]  # and decoding
    assert first["left_is"] == "about"
    assert first["seconds_per_step"] > 0
    assert (last["state"], last["blocks"], last["failures"]) == ("done", 16, [])
    # The same store with nobody at work: where it stood, and that its driver is gone.
    left = status(tmp_path / "copy.zarr")
    assert (left.state, left.reason, left.step) == ("stopped", "its driver is gone", 2)
    assert left.left is None


def test_a_store_in_a_bucket_is_read_alike(s3: S3Server) -> None:
    address = f"s3://{BUCKET}/seen.zarr"
    seen = []

    def look(handle: RenderHandle, step: int, timestep: float, more: object) -> None:
        seen.append(status(address))
        handle.interrupt = step == 1

    with pytest.raises(RenderCancelledError):
        render(small_spec(address), callback_on_step_end=look)
    assert [found.state for found in seen] == ["running", "running"]
    # There a step is seen once its state is saved, beside the next one, or after some seconds.
    assert [done - found.step in (0, 1) for done, found in enumerate(seen, 1)] == [True, True]
    stopped = status(address)
    assert (stopped.state, stopped.step) == ("stopped", 2)
    assert stopped.reason.startswith("stopped as asked")


def test_time_left_is_what_the_driver_told_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "START_SECONDS", 0.0)
    out = tmp_path / "a.zarr"
    seen: list[Status] = []
    told: list[Event] = []

    def look(handle: RenderHandle, step: int, timestep: float, more: object) -> None:
        seen.append(status(out))
        if step == 0:
            report(out, tmp_path / "a.html")
        handle.interrupt = step == 3

    with pytest.raises(RenderCancelledError):
        render(small_spec(out, **CASCADE), callback_on_step_end=look, on_event=told.append)
    assert [(s.stage, s.step, s.size) for s in seen] == [
        *((1, step, (64, 256)) for step in (1, 2, 3)),
        (2, 1, (128, 512)),
    ]
    steps = [event.facts for event in told if event.kind == "step"]
    assert [(s.left, s.left_is) for s in seen] == [(f["left"], "about") for f in steps]
    assert all(f"about {span(s.left or 0)} left" in s.line() for s in seen)
    page = (tmp_path / "a.html").read_text()
    assert f"<dt>time left</dt><dd>about {span(seen[0].left or 0)}</dd>" in page
    # Each step to come of the second stage has four times the pixels.
    assert all((s.left or 0) > s.seconds_per_step * 4 * 3 for s in seen[:3])
    stopped = status(out)
    assert (stopped.state, stopped.step) == ("stopped", 1)
    assert stopped.reason.startswith("stopped as asked")
    assert stopped.failures == []
    assert "step 1/3" in str(stopped)
    result = frieze("status", str(out), "--follow")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "frieze resume" in result.stderr
    # Whoever resumes it takes it up before what takes long, and others see that.
    heard: dict[str, str] = {}
    resume(out, on_event=lambda event: heard.update({event.message: status(out).state}))
    assert (heard["encoding the prompt"], status(out).state) == ("running", "done")
    assert any(message.startswith("loading weights, 0.") for message in heard)


def test_who_follows_waits_for_a_driver_that_has_just_been_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts: dict[str, Any] = {"reason": "", "stage": 1, "num_stages": 1, "size": (64, 64)}
    facts |= {"step": 1, "num_steps": 4, "blocks": 0, "num_blocks": 4, "seconds_per_step": 0.0}
    facts |= {"left": None, "heard": 0.0, "silence": 0.0, "num_resumes": 1, "num_recovered": 0}
    states = iter(["stopped", "stopped", "running", "running", "done"])
    module = importlib.import_module("frieze.renderer.monitoring.status")

    def look(path: str) -> Status:
        return Status(path=path, state=next(states), stages=[], **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "status", look)
    monkeypatch.setattr(looking, "POLL_SECONDS", 0.0)
    assert frieze("status", "a.zarr", "--follow").exit_code == 0
    # Once it was seen at work, its end is the end.
    states = iter(["stopped", "running", "stopped", "running"])
    assert frieze("status", "a.zarr", "--follow").exit_code == 1
    assert next(states) == "running"


def test_failures_are_told_with_their_time(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    log = tmp_path / "a.zarr" / "frieze" / "log.jsonl"
    log.write_text('{"time": 86400.0, "event": "failure", "message": "rank 1 was lost"}\n')
    found = status(store.path)
    assert [failure["message"] for failure in found.failures] == ["rank 1 was lost"]
    assert "failures: 1, recovered from 0\n  1970-01-0" in str(found)
    assert "rank 1 was lost" in str(found)


@pytest.mark.parametrize("what", ["nothing", "a folder", "a file", "half made", "damaged"])
def test_bad_input_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.zarr"
    said = {
        "nothing": "there is no store at",
        "a folder": "no Frieze store",
        "a file": "there is no store at",
        "half made": "half made",
        "damaged": "line 1 is no event",
    }
    if what == "a folder":
        (path / "holiday").mkdir(parents=True)
    if what == "a file":
        path.write_text("not a folder")
    if what == "half made":
        (path / "frieze").mkdir(parents=True)
    if what == "damaged":
        store = make_store(path, picture(64, 64), (32, 32))
        lines = store.journal.path.read_bytes()
        aged(path)
        store.journal.path.write_bytes(b"nonsense\n" + lines)
    before = sorted(tmp_path.rglob("*"))
    refused(frieze("status", str(path)), str(path), said[what])
    assert sorted(tmp_path.rglob("*")) == before
