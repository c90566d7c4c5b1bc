"""The damage drill: every file of small stores damaged in every way, then looked at and resumed.

A store is finished, stopped between two steps, or drawn and not yet decoded. What may come of it:
the same bytes, the same bytes drawn again, or one line that says what is wrong.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.gallery import Gallery
from frieze.renderer import Event, FriezeError, RenderCancelledError, render, resume
from frieze.renderer.monitoring.status import status
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.integrity.verification import verify
from frieze.renderer.store.store import Store

STAGES = [{"scale": 0.5, "steps": 2}, {"scale": 1.0, "start": 0.6, "steps": 2}]
PLAIN: dict[str, Any] = {"height": 64, "width": 64, "negative_prompt": None}
# A cascade on two ranks with a pyramid, a render guided by its first stage, an animated picture.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "cascade": (
        "flux",
        PLAIN | {"height": 288, "workers": 2, "method": "ntk", "stages": STAGES, "chunk": 128},
    ),
    "guided": ("flux", PLAIN | {"method": "hiflow", "stages": STAGES}),
    "clip": ("wan-i2v", PLAIN | {"num_frames": 5, "num_inference_steps": 2, "guidance_scale": 1.0}),
}
# (event, its number) at which a render of each kind is stopped.
CONDITIONS = {"finished": None, "stopped": "step", "drawn": "block"}
LONGEST = 1200  # letters of an error


@dataclass(frozen=True)
class Case:
    """One file of one store, damaged in one way."""

    kind: str
    condition: str
    name: str
    way: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.condition}: {self.name} {self.way}"


@dataclass(frozen=True)
class Outcome:
    """`end` is one of `ENDS`, the last two of which must not be; `text` says more."""

    case: Case
    end: str
    text: str = ""


ENDS = ("same bytes", "drawn again", "one line", "SILENTLY WRONG", "TRACEBACK")
Damage = Callable[[bytes, random.Random], bytes]


def flipped(at: float) -> Damage:
    """One bit of the byte at a share of the length."""

    def flip(data: bytes, chance: random.Random) -> bytes:
        place = min(int(at * len(data)), len(data) - 1)
        return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]

    return flip


def other_byte(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return (
        data[:place] + bytes([(data[place] + chance.randrange(1, 256)) % 256]) + data[place + 1 :]
    )


WAYS: dict[str, Damage] = {
    "bit of the first byte": flipped(0.0),
    "bit of a byte in the first third": flipped(0.3),
    "bit of a byte in the last third": flipped(0.8),
    "bit of the last byte": flipped(1.0),
    "another byte": other_byte,
    "cut in the middle": lambda data, chance: data[: len(data) // 2],
    "cut by a byte": lambda data, chance: data[:-1],
    "empty": lambda data, chance: b"",
    "zeros": lambda data, chance: bytes(len(data)),
    "longer": lambda data, chance: data + chance.randbytes(16),
}
# Beside these, files are deleted, and have the content of another file of the store.
DELETED, SWAPPED = "deleted", "as the next file"


class Drill:
    """Stores of every kind in every condition, each drawn once and copied for each case.

    Processes may share a folder once one of them has listed the cases, which draws all stores. Each
    drawing its own would not do: which blocks an unfinished store has is chance.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gallery = Gallery(folder)
        self._whole: dict[str, list[np.ndarray]] = {}

    def store(self, kind: str, condition: str) -> Path:
        """The undamaged store."""
        path = self.folder / f"{kind}-{condition}" / "a.zarr"
        if not path.parent.exists():
            path.parent.mkdir()
            layout, fields = KINDS[kind]
            _drawn(self.gallery.spec(layout, out=str(path), **fields), CONDITIONS[condition])
            assert Store.open(path).is_complete == (condition == "finished")
        return path

    def whole(self, kind: str) -> list[np.ndarray]:
        """Every level of the picture, as it must be."""
        if kind not in self._whole:
            self._whole[kind] = levels(self.store(kind, "finished"))
        return self._whole[kind]

    def cases(self) -> Iterator[Case]:
        """Every file of every store in every way."""
        for kind in KINDS:
            for condition in CONDITIONS:
                path = self.store(kind, condition)
                for file in files(path):
                    for way in (*WAYS, DELETED, SWAPPED):
                        yield Case(kind, condition, file, way)

    def run(self, case: Case) -> Outcome:
        """Damage a copy, look at it, export it, resume it."""
        source = self.store(case.kind, case.condition)
        path = self.folder / f"case-{os.getpid()}" / "a.zarr"
        shutil.copytree(source, path)
        try:
            if not _damage(path, case):
                return Outcome(case, "same bytes", "nothing to damage")
            return self._outcome(case, path)
        except Exception:  # what it is all about
            return Outcome(case, "TRACEBACK", traceback.format_exc())
        finally:
            shutil.rmtree(path.parent)

    def _outcome(self, case: Case, path: Path) -> Outcome:
        before = _told(lambda: verify(path).is_whole)
        _told(lambda: status(path))
        if wrong := self._exported(case, path):
            return Outcome(case, "SILENTLY WRONG", wrong)
        notes: list[str] = []

        def hear(event: Event) -> None:
            if event.kind == "note":
                notes.append(event.message)

        if error := _told(lambda: resume(path, on_event=hear)).error:
            return Outcome(case, "one line", error)
        if not _are_equal(levels(path), self.whole(case.kind)):
            return Outcome(case, "SILENTLY WRONG", f"resumed to other bytes; {notes}")
        if not (after := verify(path)).is_whole:
            return Outcome(case, "SILENTLY WRONG", f"resumed, and still damaged: {after}")
        told = [note for note in notes if ": " in note]
        if before.value is False and not told:
            return Outcome(case, "SILENTLY WRONG", "mended without a word")
        return Outcome(case, "drawn again" if told else "same bytes", "; ".join(told))

    def _exported(self, case: Case, path: Path) -> str:
        """What is wrong with an export of it; empty where it is right, or refused."""
        out = path.parent / "b.zarr"
        if case.condition != "finished" or _told(lambda: export(path, out, overwrite=False)).error:
            return ""
        found = [_read(out / str(i)) for i in range(len(self.whole(case.kind)))]
        shutil.rmtree(out)
        return "" if _are_equal(found, self.whole(case.kind)) else "exported other pixels"


@dataclass(frozen=True)
class _Told:
    value: Any = None
    error: str = ""


def _told(work: Callable[[], Any]) -> _Told:
    """What came of it; an expected error is one line that fits a terminal."""
    try:
        return _Told(work())
    except FriezeError as error:
        text = str(error)
        assert text.isprintable(), repr(text)
        assert len(text) <= LONGEST, text
        return _Told(error=text)


def _drawn(spec: Any, until: str | None) -> None:
    """Draw; with `until` stop in the last stage's middle, or when the first blocks are there."""
    cancel = threading.Event()

    def hear(event: Event) -> None:
        is_late = event.stage == event.num_stages
        if event.kind == until and is_late and (until == "block" or event.step == 1):
            cancel.set()

    try:
        render(spec, on_event=hear, cancel=cancel)
    except RenderCancelledError:
        assert until


def files(path: Path) -> list[str]:
    """All files of a store, in their order."""
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def levels(path: Path) -> list[np.ndarray]:
    """Every level of a finished store's pyramid."""
    return [_read(path / str(i)) for i in range(Store.open(path).layout.num_levels)]


def _read(array: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(array, mode="r")[:])


def _are_equal(found: list[np.ndarray], whole: list[np.ndarray]) -> bool:
    return len(found) == len(whole) and all(map(np.array_equal, found, whole))


def _damage(path: Path, case: Case) -> bool:
    """Damage one file of a store; False where that changes nothing."""
    file = path / case.name
    data = file.read_bytes()
    if case.way == DELETED:
        file.unlink()
        return True
    if case.way == SWAPPED:
        names = files(path)
        other = names[(names.index(case.name) + 1) % len(names)]
        damaged = (path / other).read_bytes()
    elif data or case.way == "longer":
        damaged = WAYS[case.way](data, random.Random(str(case)))
    else:
        damaged = data
    file.write_bytes(damaged)
    return damaged != data


def what(name: str) -> str:
    """What a file of a store holds, in a word or two."""
    folder, _, last = name.rpartition("/")
    if last == "zarr.json":
        return "zarr.json"
    if folder == "frieze":
        return last
    if not folder.startswith("frieze"):
        return "block" if folder.startswith("0/") else "pyramid"
    array = folder.split("/")[2]
    return array.partition("-")[2] or ("state" if array.isdigit() else array)
