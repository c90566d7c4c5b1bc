"""The kill drill: renders on Ray workers, each with a fault at a random place."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawing import grey_levels, pixels, small_spec
from frieze.renderer import Event, StoreError, render, resume
from frieze.renderer.journal import FileJournal

TIMEOUT = 120.0  # --timeout of each render, in seconds
PATIENCE = 600.0  # seconds; no render of the drill may take longer, on a busy machine either
# Two stages, so that faults also fall between them, and blocks enough to be caught decoding.
SMALL: dict[str, Any] = {
    "height": 128,
    "width": 128,
    "method": "pi",
    "workers": 2,
    "local": False,
    "chunk": 16,
    "timeout": TIMEOUT,
    "stages": [{"scale": 0.5, "steps": 3}, {"scale": 1.0, "start": 0.6, "steps": 4}],
}
PLACES = [("step", n) for n in range(1, 8)] + [("decode", 1), ("block", 1)]


@dataclass
class Story:
    """What one render went through."""

    fault: str
    place: tuple[str, int]
    at: float | None = None
    detected: float | None = None  # seconds from the fault to the first word of it,
    resumed: float | None = None  # and to the first step or block after that
    redone: int = 0
    end: str = ""
    _newest: int = 0

    def strike(self) -> None:
        self.at = time.monotonic()

    def listen(self, event: Event) -> None:
        since = 0.0 if self.at is None else time.monotonic() - self.at
        if event.kind == "failure" and self.detected is None:
            self.detected = since
        if event.kind == "step":
            number = 3 * (event.stage - 1) + event.step
            self.redone += number <= self._newest
            self._newest = max(self._newest, number)
        if event.kind in ("step", "block") and self.detected is not None and not self.resumed:
            self.resumed = since

    def row(self) -> str:
        def shown(seconds: float | None) -> str:
            return "" if seconds is None else f"{seconds:.1f} s"

        place = f"{self.place[0]} {self.place[1]}"
        cells = (self.fault, place, shown(self.detected), shown(self.resumed), str(self.redone))
        return "| " + " | ".join((*cells, self.end)) + " |"


Fault = Callable[[Story, Path, random.Random], None]


def struck(story: Story, path: Path, strike: Callable[[list[int]], None]) -> None:
    """Render, and let the fault happen at its place to the workers of that time."""
    kinds: list[str] = []
    crew: list[int] = []

    def listen(event: Event) -> None:
        kinds.append(event.kind)
        if "workers" in event.facts:
            crew[:] = [worker["pid"] for worker in event.facts["workers"]]
        story.listen(event)
        if (event.kind, kinds.count(event.kind)) == story.place and story.at is None:
            story.strike()
            strike(crew)

    render(small_spec(path, **SMALL), on_event=listen)


def killed_worker(story: Story, path: Path, chance: random.Random) -> None:
    struck(story, path, lambda crew: os.kill(chance.choice(crew), signal.SIGKILL))


def stopped_worker(story: Story, path: Path, chance: random.Random) -> None:
    struck(story, path, lambda crew: os.kill(chance.choice(crew), signal.SIGSTOP))


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import environment
from drawing import small_spec
from drill import SMALL
from frieze.renderer import render
spec = small_spec(Path({path!r}), **SMALL, address={address!r})
render(spec, on_event=lambda event: print(event.to_json(), flush=True))
"""


def killed_driver(story: Story, path: Path, chance: random.Random) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    kind, number = story.place
    with script(DRIVER, path=str(path), address=address) as lines:
        for event in lines:
            story.listen(event)
            number -= event.kind == kind
            if not number:
                story.strike()
                break
    story.detected = 0.0
    resume(path, on_event=story.listen)


NODE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import environment
from ray.cluster_utils import Cluster
from drawing import small_spec
from drill import SMALL
from frieze.renderer import Event, render
small = {{"num_cpus": 1, "object_store_memory": 2**27}}
head = small | {{"include_dashboard": False}}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(**small)
place, kinds = {place!r}, []
def listen(event):
    kinds.append(event.kind)
    print(event.to_json(), flush=True)
    if (event.kind, kinds.count(event.kind)) == place and "struck" not in kinds:
        kinds.append("struck")
        print(Event("note", message="struck").to_json(), flush=True)
        os.kill(second.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        if {is_replaced}:
            cluster.add_node(**small)
try:
    where = {{"address": cluster.address, "wait": 90 if {is_replaced} else 20}}
    render(small_spec(Path({path!r}), **SMALL, **where), on_event=listen)
finally:
    import ray
    ray.shutdown()
    cluster.shutdown()
"""


def killed_node(story: Story, path: Path, chance: random.Random, is_replaced: bool) -> None:
    """The raylet of the second of two nodes, in a cluster of its own; its workers end with it."""
    place = story.place
    with script(NODE, path=str(path), place=place, is_replaced=is_replaced) as lines:
        for event in lines:
            story.listen(event)
            if event.message == "struck":
                story.strike()


def lost_node(story: Story, path: Path, chance: random.Random) -> None:
    killed_node(story, path, chance, is_replaced=False)


def replaced_node(story: Story, path: Path, chance: random.Random) -> None:
    killed_node(story, path, chance, is_replaced=True)


def failing_store(story: Story, path: Path, chance: random.Random) -> None:
    """The driver's own writes: the journal's next line fails once."""
    real = FileJournal._write

    def once(self: FileJournal, line: bytes) -> None:
        FileJournal._write = real  # type: ignore[method-assign]
        raise OSError(5, "Input/output error")

    def strike(crew: list[int]) -> None:
        FileJournal._write = once  # type: ignore[method-assign]

    try:
        struck(story, path, strike)
    finally:
        FileJournal._write = real  # type: ignore[method-assign]


def full_disk(story: Story, path: Path, chance: random.Random) -> None:
    """The store lies on a file system that has no room left; later there is room again."""
    with small_disk(path.parent / "disk") as disk:
        inside = disk / path.name

        def strike(crew: list[int]) -> None:
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while file.write(b"\0" * 2**12):
                    pass

        with pytest.raises(StoreError, match="No space left"):
            struck(story, inside, strike)
        (disk / "filler").unlink()
        resume(inside, on_event=story.listen)
        shutil.copytree(inside, path)
    story.end = "one error, resumed to "


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "frieze", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def can_mount() -> bool:
    """Whether this process may make a small disk."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def script(code: str, **values: Any) -> Iterator[Iterator[Event]]:
    """The events of a render in a process of its own, which is killed when the block ends."""
    code = code.format(tests=str(Path(__file__).parent), **values)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield events(process)
    finally:
        process.kill()
        process.communicate()


def events(process: subprocess.Popen[str]) -> Iterator[Event]:
    known = ("stage", "step", "blocks", "seconds", "message")
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith('{"event"'):  # Ray's own words
            continue
        fields = json.loads(line)
        kind = fields.pop("event")
        yield Event(kind, **{name: fields[name] for name in known if name in fields})
    assert process.wait() == 0, process.stderr and process.stderr.read()[-2000:]


FAULTS: dict[str, Fault] = {
    "SIGKILL to a worker": killed_worker,
    "SIGSTOP to a worker": stopped_worker,
    "SIGKILL to the driver, then resume": killed_driver,
    "a store that fails once": failing_store,
    "full disk, then resume": full_disk,
    "SIGKILL to a raylet": lost_node,
    "SIGKILL to a raylet, another node comes": replaced_node,
}
# A worker of another number draws within one grey level; all others the same bytes.
NARROWER = {lost_node}
# What is only noticed when something is written; decoding writes in the ranks.
SAVES = {full_disk, failing_store}


def drill(number: int, folder: Path, whole: np.ndarray, chance: random.Random) -> Story:
    """One render of the drill; raises what must not happen."""
    names = [name for name in FAULTS if FAULTS[name] is not full_disk or can_mount()]
    name = names[number % len(names)]
    place = chance.choice([("step", n) for n in range(1, 7)] if FAULTS[name] in SAVES else PLACES)
    story, path = Story(name, place), folder / f"{number}.zarr"
    began = time.monotonic()
    FAULTS[name](story, path, chance)
    seconds = time.monotonic() - began
    assert story.at is not None, f"{name} at {place} never happened"
    # Workers outlive their raylet for a few seconds, in which a small render may be done.
    is_seen = story.detected is not None
    assert is_seen or FAULTS[name] in (lost_node, replaced_node), f"unnoticed: {name} at {place}"
    assert seconds < PATIENCE, f"{story.row()}: {seconds:.0f} s"
    levels = grey_levels(pixels(path), whole)
    assert levels <= (1 if FAULTS[name] in NARROWER else 0), story.row()
    story.end += f"{'the same bytes' if not levels else 'one grey level'}, {seconds:.0f} s in all"
    shutil.rmtree(path)
    return story
