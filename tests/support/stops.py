"""Commands that are asked to stop at a moment of their work: how they end, and what they leave.

One line and code 130, nothing behind them, and what the same command with `--continue`, or
`resume`, finishes is what an undisturbed one makes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from frieze.renderer.files import lease
from frieze.renderer.store.store import Store
from support.command_line import frieze
from support.kills import (
    BATCH,
    DRAW,
    MARK,
    PATIENCE,
    RESUME,
    Kills,
    Kind,
    contents,
    differences,
    inside,
    left_running,
    told,
)
from support.s3_server import BUCKET

CANCELLED = 130
LOADS, STEPS, WRITES = "loading weights", '"event": "step"', '"event": "block"'
BEGUN = ".part"  # of an export: its folder for what is half written


@dataclass(frozen=True)
class Stop:
    """A command, and what it tells when the signal comes."""

    kind: Kind
    moment: str

    def __str__(self) -> str:
        when = {LOADS: "loading", STEPS: "a step", WRITES: "a block", BEGUN: "half written"}
        return f"{self.kind.name}, {self.kind.signal.name}, {when[self.moment]}"


@dataclass
class Ending:
    """What became of it; `seconds` from the signal to the end of the process."""

    stop: Stop
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        end = "; ".join(self.faults) or "one line, nothing left, the same bytes"
        return f"| {self.stop} | {self.seconds:.2f} s | {end} |"


def stops() -> list[Stop]:
    """Every command that does work, at what it is long busy with; signals take turns."""
    local = tuple(word for word in (*DRAW, "--local") if word != "--quiet")
    resume, batch = (tuple(w for w in words if w != "--quiet") for words in (RESUME, BATCH))
    lanes, on_ray = (*batch, "--local"), (*batch, "--workers", "2")
    address = f"s3://{BUCKET}/stopped.zarr"
    far = (*local[: local.index("--out")], "--local", "--out", address)
    again = ("resume", address, "--local", "--quiet")
    ray = tuple(word for word in DRAW if word != "--quiet")
    found = [
        *(("render", local, (*local, "--continue"), "nothing", at) for at in (STEPS, LOADS)),
        *(("bucket", far, again, "nothing", at) for at in (LOADS, STEPS)),
        *(("render, Ray", ray, (*local, "--continue"), "nothing", at) for at in (LOADS, STEPS)),
        ("export", ("export", "a.zarr", "b.tif"), ("export", "a.zarr", "b.tif"), "drawn", BEGUN),
        ("batch, Ray", on_ray, (*lanes, "--continue"), "jobs", STEPS),
        *(("resume", resume, RESUME, "stopped", at) for at in (WRITES, STEPS)),
        ("batch", lanes, (*lanes, "--continue"), "jobs", STEPS),
    ]
    return [
        Stop(Kind(name, words, again, begins, signal=turn), at)
        for number, (name, words, again, begins, at) in enumerate(found)
        for turn in [(signal.SIGTERM, signal.SIGINT)[number % 2]]
    ]


def one(kills: Kills, stop: Stop, number: int) -> Ending:
    """Start a command, stop it, finish its work, and compare."""
    kind, ending, mark = stop.kind, Ending(stop), secrets.token_hex(8)
    is_far = kind.name == "bucket"
    if not is_far:
        expected = kills.expected(kind)
    place = kills._place(f"stop-{number}", kind)
    with _started(stop, place, mark) as process:
        if not _waited(process, stop, place):
            ending.faults.append(f"it ended before: {process.communicate(timeout=PATIENCE)[1]}")
            return ending
        began = time.monotonic()
        process.send_signal(kind.signal)
        _, err = process.communicate(timeout=PATIENCE)
        ending.seconds = time.monotonic() - began
    ending.faults += told(process.returncode, err)
    ends = [line for line in err.splitlines() if line.startswith("frieze: ")]
    if process.returncode != CANCELLED or len(ends) != 1:
        ending.faults.append(f"exit {process.returncode}: {err[-300:]}")
    ending.faults += left_running(mark)
    if is_far:
        ending.faults += _finished_far(kills, kind)
        return ending
    with inside(place):
        shown = frieze(*kind.again)
    if shown.exit_code:
        ending.faults.append(f"again: exit {shown.exit_code}: {shown.stderr[-300:]}")
    ending.faults += differences(expected, contents(place))
    shutil.rmtree(place)
    return ending


def _finished_far(kills: Kills, kind: Kind) -> list[str]:
    """What is wrong with a store in a bucket: its lease, and its pixels once it is finished."""
    address = kind.again[1]
    if not Store.exists(address):
        return [] if frieze(*kind.words).exit_code == 0 else ["it is not drawn after the stop"]
    faults = []
    if Store.open(address).directory.read(lease.NAME) is not None:
        faults.append("its lease is still held")
    shown = frieze(*kind.again)
    if shown.exit_code:
        return [*faults, f"again: exit {shown.exit_code}: {shown.stderr[-300:]}"]
    far, near = Store.open(address), Store.open(kills._drawn / "a.zarr")
    if not np.array_equal(*(each.read_rows(0, each.layout.height) for each in (far, near))):
        faults.append("other pixels")
    far.directory.discard()
    return faults


@contextmanager
def _started(stop: Stop, place: Path, mark: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {MARK: mark, "TMPDIR": str(place / "tmp"), "RAY_TMPDIR": "/tmp"}
    process = subprocess.Popen(
        [sys.executable, "-m", "frieze.renderer", *stop.kind.words, "--json"],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _waited(process: subprocess.Popen[str], stop: Stop, place: Path) -> bool:
    """Whether the moment came."""
    assert process.stdout is not None
    if stop.moment != BEGUN:
        return any(stop.moment in line for line in process.stdout)
    while process.poll() is None:
        if any(path.name.endswith(BEGUN) for path in place.iterdir()):
            return True
        time.sleep(0.001)
    return False
