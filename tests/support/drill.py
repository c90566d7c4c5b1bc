"""The kill drill: renders on Ray workers, each with a fault at a random place."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frieze.renderer import Event, StoreError, render, resume
from frieze.renderer.journal.journal import FileJournal
from support.drawing import draw, grey_levels, pixels, small_spec
from support.host_cluster import DRAW, LIMITS, SIDE, STEPS, node, two_host_cluster
from support.shared import Once
from support.story import LONG, SMALL, Story, logged, script

PATIENCE = 600.0  # seconds; no render of the drill may take longer, on a busy machine either
# So long may a fault stay unknown: a process may answer nothing for 30 s, and machines are busy.
UNKNOWN_SECONDS = 60.0
PLACES = [("step", n) for n in range(1, 8)] + [("decode", 1), ("block", 1)]


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
from support import environment
from support.drawing import small_spec
from support.story import SMALL
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
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import environment
from ray.cluster_utils import Cluster
from support.drawing import small_spec
from support.story import LONG, STEP_SECONDS
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
    if event.kind == "step" and "struck" in kinds and "failure" not in kinds:
        time.sleep(STEP_SECONDS)
try:
    where = {{"address": cluster.address, "wait": 90 if {is_replaced} else 20}}
    render(small_spec(Path({path!r}), **LONG, **where), on_event=listen)
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


def dropped_link(story: Story, path: Path, chance: random.Random) -> None:
    """The only link between two hosts goes down, and nobody is told; it stays down."""
    with two_host_cluster() as cluster:
        second = cluster.hosts[1]
        with cluster.frieze(*DRAW, "--out", str(path), *LIMITS) as process:
            try:
                for event in logged(path / "frieze" / "log.jsonl", process):
                    story.listen(event)
                    if (event.kind, event.step) == story.place and story.at is None:
                        story.strike()
                        second.unplug()
                _, err = process.communicate()
            finally:
                process.kill()
                second.plug()
        if process.returncode:
            assert f"finish with: frieze resume {path}" in err.splitlines()[-1]
            with node(cluster.head, second):
                cluster.done("resume", str(path))
            story.end = "one error, resumed to "


def failing_store(story: Story, path: Path, chance: random.Random) -> None:
    """The driver's own writes: the journal's next line fails once."""
    real = FileJournal.append

    def once(self: FileJournal, event: Mapping[str, Any]) -> None:
        FileJournal.append = real  # type: ignore[method-assign]
        raise StoreError(f"{self.path} cannot be written: Input/output error")

    def strike(crew: list[int]) -> None:
        FileJournal.append = once  # type: ignore[method-assign]

    try:
        struck(story, path, strike)
    finally:
        FileJournal.append = real  # type: ignore[method-assign]


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


FAULTS: dict[str, Fault] = {
    "SIGKILL to a worker": killed_worker,
    "SIGSTOP to a worker": stopped_worker,
    "SIGKILL to the driver, then resume": killed_driver,
    "a store that fails once": failing_store,
    "full disk, then resume": full_disk,
    "SIGKILL to a raylet": lost_node,
    "SIGKILL to a raylet, another node comes": replaced_node,
    "a dropped link between two hosts": dropped_link,
}
# A worker of another number draws within one grey level; all others the same bytes.
NARROWER = {lost_node, dropped_link}
# What is only noticed in a step, or when something is written; decoding writes in the ranks.
IN_STEPS = {full_disk, failing_store, lost_node, replaced_node, dropped_link}
ONLY_ROOT = {full_disk, dropped_link}


class Wholes:
    """What undisturbed renders draw, on two Ray workers; each is drawn when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._once = Once()

    def of(self, fault: Fault) -> np.ndarray:
        """The pixels that a render with this fault should end with, [H, W, 3]."""
        hosts = {"height": SIDE, "width": SIDE, "method": "pi", "num_inference_steps": STEPS}
        name, fields = "small", SMALL
        if fault in (lost_node, replaced_node):
            name, fields = "long", LONG
        if fault is dropped_link:
            name, fields = "hosts", {**hosts, "workers": 2, "local": False}

        def whole() -> np.ndarray:
            draw(self._folder / f"{name}.zarr", **fields)
            return pixels(self._folder / f"{name}.zarr")

        found: np.ndarray = self._once(name, whole)
        return found


def drill(number: int, folder: Path, wholes: Wholes, chance: random.Random) -> Story:
    """One render of the drill; raises what must not happen."""
    names = [name for name in FAULTS if FAULTS[name] not in ONLY_ROOT or can_mount()]
    name = names[number % len(names)]
    fault = FAULTS[name]
    place = chance.choice([("step", n) for n in range(1, 7)] if fault in IN_STEPS else PLACES)
    story, path = Story(name, place), folder / f"{number}.zarr"
    whole, began = wholes.of(fault), time.monotonic()
    fault(story, path, chance)
    seconds = time.monotonic() - began
    assert story.at is not None, f"{name} at {place} never happened"
    assert story.detected is not None, f"unnoticed: {name} at {place}"
    assert story.detected < UNKNOWN_SECONDS, story.row()
    assert seconds < PATIENCE, f"{story.row()}: {seconds:.0f} s"
    levels = grey_levels(pixels(path), whole)
    assert levels <= (1 if fault in NARROWER else 0), story.row()
    story.end += f"{'the same bytes' if not levels else 'one grey level'}, {seconds:.0f} s in all"
    shutil.rmtree(path)
    return story
