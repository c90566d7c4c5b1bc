"""Ctrl-C and SIGTERM before a render takes steps: one line, code 130, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frieze.renderer.terminal import interrupts
from support.command_line import make_store, process
from tolerances import AMPLE

# What a start may be busy with when it is stopped; each says when it is.
BUSY = """
import ctypes, subprocess, sys, tempfile, threading, time
from pathlib import Path
from frieze.renderer.cli import render as render_command
from frieze.renderer.files import scratch
from frieze.renderer import plan
def waits():
    time.sleep(600)
def computes():  # in a library that gives back the interpreter, and never looks at signals
    ctypes.CDLL(None).sleep(600)
def swallows():
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
def imports():
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        raise ImportError("numpy was interrupted")
def joins():
    try:
        time.sleep(600)
    finally:
        threading.Event().wait()
def starts_processes():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    for child in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]:
        print(child.pid, file=sys.stderr)
    waits()
def writes():
    with scratch.scratch(Path({folder!r})):
        swallows()
def draw(spec, **options):
    print("busy", file=sys.stderr, flush=True)
    {what}()
render_command.draw = draw
"""


@pytest.mark.parametrize(
    ("what", "stop"),
    [
        pytest.param(what, stop, marks=[] if is_quick else pytest.mark.slow)
        for what in ("waits", "computes", "swallows", "imports", "joins")
        for stop, is_quick in ((signal.SIGINT, True), (signal.SIGTERM, what == "waits"))
    ],
)
def test_a_start_ends_with_one_line_whatever_it_is_busy_with(
    tmp_path: Path, what: str, stop: signal.Signals
) -> None:
    program = BUSY.format(what=what, folder="")
    words = ("render", "x", "--out", str(tmp_path / "a.zarr"))
    with process(*words, program=program) as asked:
        assert asked.stderr is not None
        assert asked.stderr.readline() == "busy\n"
        asked.send_signal(stop)
        assert asked.wait(timeout=AMPLE) == 130
        assert asked.stderr.read() == "frieze: stopped before any work\n"


def lives(pid: int) -> bool:
    """Whether a process runs: one that nobody has waited for is listed and does not."""
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_processes_of_a_stopped_start_end_with_it() -> None:
    with process("render", "x", program=BUSY.format(what="starts_processes", folder="")) as asked:
        assert asked.stderr is not None
        assert asked.stderr.readline() == "busy\n"
        children = [int(asked.stderr.readline()) for _ in range(2)]
        assert sorted(interrupts.descendants(asked.pid)) == sorted(children)
        asked.send_signal(signal.SIGTERM)
        assert asked.wait(timeout=AMPLE) == 130
        assert asked.stderr.read() == "frieze: stopped before any work\n"  # nobody holds it open
    assert not any(map(lives, children))


def test_what_was_half_written_goes_and_a_store_says_how_to_go_on(tmp_path: Path) -> None:
    store, folder = make_store(tmp_path), tmp_path / "files"
    folder.mkdir()
    program = BUSY.format(what="writes", folder=str(folder))
    with process("render", "x", "--out", store, "--json", program=program) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        assert asked.stderr.readline() == "busy\n"
        asked.send_signal(signal.SIGINT)
        assert asked.wait(timeout=AMPLE) == 130
        message = f"stopped before any work; finish with: frieze resume '{store}'"
        assert asked.stderr.read() == f"frieze: {message}\n"
        told = {"event": "error", "error": "RenderCancelledError", "message": message}
        assert json.loads(asked.stdout.read()) == {**told, "exit_code": 130}
    assert list(folder.iterdir()) == []


PLANNING = """
import sys, time
import frieze.renderer.planning.plan
def plan(spec):
    print("busy", file=sys.stderr, flush=True)
    time.sleep(600)
sys.modules["frieze.renderer.planning.plan"].plan = plan
"""


def test_commands_that_take_no_steps_end_at_once() -> None:
    with process("plan", program=PLANNING) as asked:
        assert asked.stderr is not None
        assert asked.stderr.readline() == "busy\n"
        asked.send_signal(signal.SIGTERM)
        assert asked.wait(timeout=AMPLE) == 130
        assert asked.stderr.read() == "frieze: stopped\n"


IMPORTING = """
import os, signal, sys, time
at, stop = sys.argv.pop(), getattr(signal, sys.argv.pop())
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), stop)
            time.sleep(600)
sys.meta_path.insert(0, Slow())
from frieze.renderer.__main__ import main
main()
"""


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "at", ["terminal.interrupts", "errors", "cli.app", "typer", "cli.render", "spec.render_spec"]
)
def test_a_command_line_that_is_still_imported_can_be_stopped(at: str, stop: str) -> None:
    name = at if at == "typer" else f"frieze.renderer.{at}"
    words = [sys.executable, "-c", IMPORTING, "render", "x", "--json", stop, name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=AMPLE)
    assert done.stderr == "frieze: stopped\n"
    assert done.returncode == 130
    about = {"error": "RenderCancelledError", "message": "stopped", "exit_code": 130}
    assert json.loads(done.stdout) == {"event": "error", **about}
