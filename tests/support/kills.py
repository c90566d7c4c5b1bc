"""Commands that are killed at a random moment of their life, from the start of the process on.

Each is a process of its own with a folder of its own; what is finished after the kill must be what
an undisturbed command makes, and nothing may be left behind: no file, no process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
import zarr
from PIL import Image

from support.command_line import frieze
from support.drawing import PROMPT
from support.forked import Forked

SIZE = ("--size", "384x384", "--num-inference-steps", "3", "--seed", "7", "--quiet")
DRAW = ("render", PROMPT, *SIZE, "--workers", "2", "--out", "a.zarr", "--also", "a.tif")
RESUME = ("resume", "a.zarr", "--local", "--quiet")
BATCH = ("batch", "jobs.yaml", "--out", "suns", "--quiet")
JOBS = """
defaults: {prompt: a red sun over blue mountains at dusk, size: 256x256, num_inference_steps: 2}
items: [{name: first, seed: 1}, {name: second, seed: 2}, {name: third, seed: 3, size: 384x384}]
"""
EXPORTS = ("b.tif", "b.png", "b.zarr")
MARK = "FRIEZE_KILLS"  # in the environment of every process that a command starts
GONE_SECONDS = 120.0  # so long may processes take to see that their driver is gone
PATIENCE = 900.0


@dataclass(frozen=True)
class Kind:
    """A command, who of it is killed and how, and the command that finishes its work."""

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...]
    begins_with: str = "nothing"  # what the folder holds: see `Kills.template`
    signal: signal.Signals = signal.SIGKILL
    victim: str = "driver"  # or one of its "worker"s
    is_forked: bool = False  # from a process that has imported everything: no time for start-up


@dataclass
class Outcome:
    """What became of one kill."""

    kind: str
    after: float  # seconds from the start of the process to the kill
    hit: bool  # False: the command was done before
    begun: bool  # whether there was a store, or a target, at the kill
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        end = "; ".join(self.faults) or "the same bytes, nothing left"
        when = f"{self.after:.1f} s" + ("" if self.hit else " (was done)")
        return f"| {self.kind} | {when} | {'yes' if self.begun else 'no'} | {end} |"


def kinds() -> list[Kind]:
    """Every kind of kill; exports take turns with their formats."""
    local = (*DRAW, "--local")
    stops = (signal.SIGTERM, signal.SIGINT)
    threads = [
        Kind("render, threads", local, (*local, "--continue")),
        Kind("resume", RESUME, RESUME, "stopped"),
        *(
            Kind(f"export {name}", ("export", "a.zarr", name), ("export", "a.zarr", name), "drawn")
            for name in EXPORTS
        ),
        Kind("batch, threads", (*BATCH, "--local"), (*BATCH, "--local", "--continue"), "jobs"),
        *(
            Kind(f"render, threads, {stop.name}", local, (*local, "--continue"), signal=stop)
            for stop in stops
        ),
    ]
    return [
        *threads,
        *(replace(kind, name=f"{kind.name}, started before", is_forked=True) for kind in threads),
        Kind("render, Ray", DRAW, (*local, "--continue")),
        Kind("batch, Ray", (*BATCH, "--workers", "2"), (*BATCH, "--local", "--continue"), "jobs"),
        Kind("render, Ray: a worker", DRAW, (), victim="worker"),
    ]


class Kills:
    """A series of kills in one folder; templates and what is right are made when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._expected: dict[str, dict[str, str]] = {}
        self._seconds: dict[str, float] = {}

    def one(self, kind: Kind, number: int, chance: random.Random) -> Outcome:
        """Start a command, kill it, finish its work, and compare."""
        expected = self.expected(kind)
        place = self._place(f"{number}", kind)
        began = time.monotonic()
        mark = secrets.token_hex(8)
        after = chance.uniform(0.0, self._seconds[kind.name])
        with start(kind, place, mark) as process:
            hit = self._kill(process, kind, after, mark, chance)
            begun = any(path.name not in ("tmp", "jobs.yaml") for path in place.iterdir())
            outcome = Outcome(kind.name, after, hit, begun)
            survives = kind.victim == "worker" or not hit
            err = process.communicate(timeout=PATIENCE)[1]
            if survives and process.returncode:
                outcome.faults.append(f"exit {process.returncode}: {err.strip()[-300:]}")
            if not survives and kind.signal is not signal.SIGKILL:
                outcome.faults += told(process.returncode, err)
        outcome.faults += left_running(mark)
        if kind.again and hit:
            with inside(place):
                shown = frieze(*kind.again)
            done = "is already there" in shown.stderr and kind.words[0] == "export"
            if shown.exit_code and not done:
                outcome.faults.append(f"again: exit {shown.exit_code}: {shown.stderr[-300:]}")
        if not outcome.faults:
            outcome.faults += differences(expected, contents(place))
        outcome.seconds = time.monotonic() - began
        if not outcome.faults:
            shutil.rmtree(place)
        return outcome

    def expected(self, kind: Kind) -> dict[str, str]:
        """What an undisturbed command leaves; makes it, and takes its time, at the first call."""
        if kind.name not in self._expected:
            place = self._place(f"whole-{len(self._expected)}", kind)
            began = time.monotonic()
            with start(kind, place, secrets.token_hex(8)) as process:
                _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err
            self._seconds[kind.name] = time.monotonic() - began
            self._expected[kind.name] = contents(place)
            shutil.rmtree(place)
        return self._expected[kind.name]

    def _kill(
        self,
        process: Process,
        kind: Kind,
        after: float,
        mark: str,
        chance: random.Random,
    ) -> bool:
        """Whether it was still there to be killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=after)
            return False
        victim = process.pid
        while kind.victim == "worker":
            workers = [pid for pid, words in marked(mark).items() if _is_worker(words)]
            if workers:
                victim = chance.choice(workers)
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
                return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, kind.signal)
            return True
        return False

    def _place(self, name: str, kind: Kind) -> Path:
        """A folder as the command finds it."""
        place = self.folder / name
        if kind.begins_with in ("stopped", "drawn"):
            shutil.copytree(self._template(kind.begins_with), place)
        else:
            place.mkdir()
        if kind.begins_with == "jobs":
            (place / "jobs.yaml").write_text(JOBS)
        (place / "tmp").mkdir()
        return place

    def _template(self, state: str) -> Path:
        return self._drawn if state == "drawn" else self._stopped

    @cached_property
    def _drawn(self) -> Path:
        place = self.folder / "drawn"
        place.mkdir()
        with inside(place):
            shown = frieze(*DRAW, "--local")
        assert shown.exit_code == 0, shown.stderr
        (place / "a.tif").unlink()
        return place

    @cached_property
    def _stopped(self) -> Path:
        """A store after a step of its last stage, as SIGKILL leaves it."""
        place = self.folder / "stopped"
        place.mkdir()
        (place / "tmp").mkdir()
        with started((*DRAW[:-2], "--local"), place, secrets.token_hex(8)) as process:
            journal = place / "a.zarr" / "frieze" / "journal.jsonl"
            while not (journal.exists() and '"stage":1' in journal.read_text()):
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.02)
        shutil.rmtree(place / "tmp")
        return place


Process = subprocess.Popen[str] | Forked


@contextlib.contextmanager
def start(kind: Kind, place: Path, mark: str) -> Iterator[Process]:
    """A kind's command, as a process that starts or as a fork of one that has."""
    if not kind.is_forked:
        with started(kind.words, place, mark) as process:
            yield process
        return
    fork = Forked(kind.words, place)
    try:
        yield fork
    finally:
        fork.kill()
        fork.communicate()


@contextlib.contextmanager
def started(words: tuple[str, ...], place: Path, mark: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process in a folder; it is killed at the end of the block."""
    environment = os.environ | {MARK: mark, "TMPDIR": str(place / "tmp"), "RAY_TMPDIR": "/tmp"}
    process = subprocess.Popen(
        [sys.executable, "-m", "frieze.renderer", *words],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def inside(place: Path) -> Iterator[None]:
    """With `place` as the working folder and its tmp for temporary files."""
    before = os.getcwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def told(code: int, err: str) -> list[str]:
    """What is wrong with the end of a command that was asked to stop."""
    # Before Python runs a line of ours a signal ends the process by itself, without a word.
    if code in (-signal.SIGINT, -signal.SIGTERM) and not err.strip():
        return []
    lines = err.strip().splitlines()
    if "Traceback" in err:
        return [f"a traceback: {lines[-1][:200]}"]
    if code == 0 or (lines and lines[-1].startswith("frieze: ")):
        return []
    return [f"exit {code} without a line: {err[-200:]!r}"]


def left_running(mark: str) -> list[str]:
    """Processes of a command that are still there after a while."""
    deadline = time.monotonic() + GONE_SECONDS
    while found := marked(mark):
        if time.monotonic() > deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return [f"left running: {', '.join(sorted(found.values()))[:300]}"]
        time.sleep(0.1)
    return []


def marked(mark: str) -> dict[int, str]:
    """(pid, command line) of the processes that a command started, itself included."""
    found = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes():
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if words:  # else it has ended, and waits for its parent
                    found[int(place.name)] = words
    return found


def contents(place: Path) -> dict[str, str]:
    """All that lies in a folder: names, and a digest of the pixels of what has any."""
    found: dict[str, str] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        inner = [part for part in path.relative_to(place).parents if part.suffix == ".zarr"]
        if inner or "/tmp/" in f"/{name}" or name.startswith("tmp/ray"):
            if path.name.endswith((".part", ".partial")):
                found[name] = "left over"
            continue
        found[name] = digest(path)
    return found


def digest(path: Path) -> str:
    """Of a picture's pixels; empty for what is none."""
    readers: Mapping[str, Callable[[Path], object]] = {
        ".tif": lambda file: [page.asarray() for page in tifffile.TiffFile(file).pages],
        ".png": lambda file: [np.asarray(Image.open(file))],
        ".zarr": lambda file: [
            np.asarray(zarr.open_array(str(level), mode="r")[:])
            for level in sorted(file.glob("[0-9]*"))
        ],
    }
    if path.suffix not in readers or path.name == "contact.png":
        return ""
    total = hashlib.sha256()
    for array in readers[path.suffix](path):  # type: ignore[attr-defined]
        total.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _is_worker(words: str) -> bool:
    """Of a command line on Ray. A node's agents are none: without one of them it ends."""
    return words.startswith("ray::") and "Agent" not in words


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """In words, where two folders differ."""
    words = [f"missing: {name}" for name in expected if name not in found]
    words += [f"left behind: {name}" for name in found if name not in expected]
    both = expected.keys() & found.keys()
    return words + [
        f"other pixels: {name}" for name in sorted(both) if expected[name] != found[name]
    ]
