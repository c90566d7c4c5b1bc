"""Errors on the command line: one line, an exit code, and how to go on; Ctrl-C included."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer.cli import render
from frieze.renderer.driver.caller import RenderResult
from frieze.renderer.errors import (
    ModelError,
    PlanError,
    RenderCancelledError,
    RenderFailedError,
    StoreError,
)
from frieze.renderer.events import Event
from frieze.renderer.spec.render_spec import RenderSpec
from support.command_line import frieze, make_store, process, refused
from tolerances import AMPLE


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, began: bool) -> None:
    def draw(spec: RenderSpec, *, on_event: Callable[[Event], None], **_: Any) -> RenderResult:
        if began:
            on_event(Event("stage", stage=1, num_stages=1))
        raise error

    monkeypatch.setattr(render, "draw", draw)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["render", "x", "--hieght", "9"], ["--hieght", "--height"]),
        (["render", "x", "--steps", "9"], ["--num-inference-steps"]),
        (["--verison"], ["--version"]),
        (["rendr"], ["rendr", "render"]),
        (["render", "x", "y"], ["y", "frieze render --help"]),
        (["render", "x", "--height"], ["--height"]),
        (["render", "x", "--height", "abc"], ["height", "'abc'", "integer"]),
        (["render", "x", "--height", "8"], ["height", "8", "16"]),
        (["render", "x", "--dtype", "int3"], ["--dtype", "int3", "bfloat16"]),
        (["render", "x", "--size", "64"], ["--size '64'", "1024x768"]),
        (["render", "x", "--size", "64x"], ["--size '64x'", "1024x768"]),
        (["render", "x", "--size", "64x64", "--height", "32"], ["--size 64x64", "--height 32"]),
        (["render", "x", "--size", "8x64"], ["width", "8", "16"]),
        (["render", "x", "--preset", "nope"], ["'nope'", "demo"]),
        (["render"], ["no prompt", "frieze render"]),
        (["export", "a.zarr"], ["OUT"]),
        (["export", "a.zarr", "a.doc"], ["'.doc'", ".tif"]),
        (["resume", "a.zarr", "--workers", "x"], ["workers", "'x'"]),
    ],
)
def test_bad_input_is_one_line_and_code_2(words: list[str], parts: list[str]) -> None:
    refused(frieze(*words), *parts)


def test_an_unknown_key_in_a_preset_names_file_and_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: a moon\nheigth: 64\n")
    refused(frieze("render", "--preset", str(path)), str(path), "'heigth'", "'height'")


@pytest.mark.parametrize("error", [PlanError, ModelError, StoreError])
def test_a_refusal_before_work_is_code_2(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    broken(monkeypatch, error("no room\nfor that"), began=False)
    refused(frieze("render", "x"), "frieze: no room for that\n")


def test_a_failure_during_work_is_code_1_and_ends_with_the_resume_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = make_store(tmp_path)
    broken(monkeypatch, StoreError("disk full"), began=True)
    shown = frieze("render", "x", "--out", store, "-q")
    refused(shown, "disk full", code=1)
    assert shown.stderr.endswith(f"; finish with: frieze resume '{store}'\n")


def test_the_resume_command_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = f"rank 1 died; finish with: frieze resume {make_store(tmp_path)}"
    broken(monkeypatch, RenderFailedError(told), began=True)
    shown = frieze("render", "x", "--out", str(tmp_path / "a b.zarr"), "-q")
    assert (shown.exit_code, shown.stderr) == (1, f"frieze: {told}\n")


def test_errors_of_the_cluster_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from frieze.cluster.fleet import WorkerLostError

    broken(monkeypatch, WorkerLostError("rank 1 died"), began=False)
    refused(frieze("render", "x"), "rank 1 died", code=1)


def test_a_cancelled_render_is_code_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    broken(monkeypatch, RenderCancelledError("stopped as asked"), began=True)
    refused(frieze("render", "x", "--out", store, "-q"), "stopped", "frieze resume", code=130)


def test_json_ends_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, PlanError("too large"), began=False)
    shown = frieze("render", "x", "--json")
    assert json.loads(shown.stdout) == {
        "event": "error",
        "error": "PlanError",
        "message": "too large",
        "exit_code": 2,
    }
    assert (shown.exit_code, shown.stderr) == (2, "frieze: too large\n")


def test_no_expected_error_shows_a_traceback() -> None:
    asked = process("render", "x", "--model", "/nowhere", "--out", "/nowhere/x.zarr")
    out, err = asked.communicate(timeout=AMPLE)
    assert (asked.returncode, out) == (2, "")
    assert "Traceback" not in err
    assert err.startswith("frieze: ")


BROKEN = """
from frieze.renderer.cli import render as render_command
render_command.draw = lambda *a, **k: 1 / 0
"""


def test_a_fault_of_ours_is_one_line_too_and_code_70(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, ZeroDivisionError("by\x1b[2J\nzero" + 5000 * "!"), began=False)
    shown = frieze("render", "x")
    refused(shown, "ZeroDivisionError: by\\x1b[2J zero", "fault of Frieze", code=70)
    assert len(shown.stderr) < 1200


@pytest.mark.parametrize("words", [("--traceback", "render", "x"), ("render", "x", "--traceback")])
def test_a_fault_shows_where_it_comes_from_if_asked_to(words: tuple[str, ...]) -> None:
    asked = process(*words, program=BROKEN)
    _, err = asked.communicate(timeout=AMPLE)
    assert asked.returncode == 1
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_output_that_nobody_reads_any_more_is_no_fault() -> None:
    with process("--help") as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        asked.stdout.close()
        assert asked.wait(timeout=AMPLE) in (0, 1)  # 0: it was written before anybody left
        assert asked.stderr.read() == ""


# Ctrl-C and SIGTERM

WAITING = """
import time
from frieze.renderer.cli import render as render_command
from frieze.renderer import Event, RenderCancelledError
def draw(spec, *, on_event, cancel, **options):
    on_event(Event("stage", stage=1, num_stages=1))
    while not (cancel.is_set() and {polite}):
        time.sleep(0.02)
    raise RenderCancelledError("stopped as asked")
render_command.draw = draw
"""


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize(("stop", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_stop_is_heeded_at_the_next_step_and_twice_at_once(
    tmp_path: Path, polite: bool, stop: signal.Signals, name: str
) -> None:
    store = make_store(tmp_path)
    with process("render", "x", "--out", store, program=WAITING.format(polite=polite)) as asked:
        assert asked.stderr is not None
        assert asked.stderr.readline() == "stage 1/1\n"
        asked.send_signal(stop)
        assert asked.stderr.readline().startswith(f"stopping at the next step; {name} again")
        if not polite:
            asked.send_signal(stop)
        assert asked.wait(timeout=AMPLE) == 130
        what = "stopped as asked" if polite else "aborted"
        told = f"frieze: {what}; finish with: frieze resume '{store}'\n"
        assert asked.stderr.read() == told
