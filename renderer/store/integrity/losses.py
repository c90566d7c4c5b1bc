"""What of a store is not what was written: every file that counts is read.

Without digests, as in stores of old, files are decoded instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import StoreError
from ...inputs.sources import Source, is_there
from ...journal.checksums import digest
from ...journal.inventory import SavedState
from ..chunk_keys import LATENTS, of_block, of_level, of_slot
from ..layout import LatentArray
from ..store import Store
from ..upstream import needed_beside

UNNEEDED = "the picture is whole, and it is needed no more"
Broken = list[tuple[str, str]]  # (name, what is wrong) of files
File = tuple[str, str]  # its array, its key in there


@dataclass(frozen=True)
class Damage:
    """One thing that is not what was written; `again` is what a resume does about it, if it can."""

    name: str
    reason: str
    again: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.reason}: {self.again or 'it cannot be made again'}"


@dataclass
class Losses:
    """What is damaged in a store, by what it held; `names` are those of zarr.json files."""

    damage: list[Damage] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    states: list[SavedState] = field(default_factory=list)
    kept: list[tuple[str, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    num_files: int = 0

    def event(self) -> dict[str, Any] | None:
        """What the journal is to say, so that the damaged counts for nothing; None for nothing."""
        states = [list(vars(state).values()) for state in self.states]
        found = {"blocks": self.blocks, "levels": self.levels, "states": states}
        found |= {"kept": [list(kept) for kept in self.kept], "lines": self.lines}
        said = {name: values for name, values in found.items() if values}
        return {"event": "lost", **said} if said else None


def examine(store: Store) -> Losses:
    """Look at everything that counts in a store."""
    found = Losses()
    examination = _Examination(store, found)
    for name, reason in store.arrays.damaged_documents().items():
        found.names.append(name)
        found.damage.append(Damage(name, reason, "it is written anew"))
    found.num_files += len(store.documents) + 1
    for line in store.journal.damaged():
        found.lines.append(line)
        again = "what it told of is done again, if nothing else tells of it"
        found.damage.append(Damage(f"frieze/journal, {line}", "is not what was written", again))
    examination.blocks()
    examination.levels()
    examination.states()
    return found


class _Examination:
    """Files of one store, each looked at once."""

    def __init__(self, store: Store, found: Losses) -> None:
        self.store = store
        self.held = store.arrays.inventory()
        self.found = found
        self._seen: dict[File, str] = {}

    def blocks(self) -> None:
        """Every block that is done, in all its levels."""
        layout = self.store.layout
        done = sorted(self.store.done(), key=lambda block: list(map(int, block.split("/"))))
        files = {b: [(str(level), key) for level, key in of_block(layout, b)] for b in done}
        self._look_at(file for each in files.values() for file in each)
        for block in done:
            if broken := self._broken(files[block]):
                self.found.blocks.append(block)
                self._add(broken, f"block {block} is drawn again")

    def levels(self) -> None:
        """Levels of the pyramid that no block owns."""
        if self.held.levels is None:
            return
        for level in self.store.layout.levels:
            if level.by_block:
                continue
            files = [(str(level.index), key) for key in of_level(self.store.layout, level)]
            if broken := self._broken(files):
                self.found.levels.append(level.index)
                self._add(broken, "the pyramid is built again")

    def states(self) -> None:
        """The newest state, with all that is needed beside it; or the newest that is whole."""
        states = self.store.states()
        lost: list[tuple[SavedState, Broken]] = []
        for state in reversed(states):
            broken = self._of_state(state)
            if not broken:
                self._sources(state)
                break
            lost.append((state, broken))
            if not self.store.journal.is_sealed:
                break
        else:
            state = None
            self._sources(None)
        self._tell(lost, state)

    def _tell(self, lost: list[tuple[SavedState, Broken]], whole: SavedState | None) -> None:
        """Say what of the states is lost; without checksums no older one can be trusted."""
        again = "the steps are done again from the start"
        if whole is not None:
            again = f"the steps after step {whole.step} of stage {whole.stage + 1} are done again"
        if not self.store.journal.is_sealed:
            again = ""
        if not self._is_needed:
            again = UNNEEDED
        for state, broken in lost:
            self.found.states.append(state)
            self._add(broken, again)

    @property
    def _is_needed(self) -> bool:
        """Whether anything is still to be drawn."""
        return not self.store.is_complete or bool(self.found.blocks or self.found.levels)

    def _of_state(self, state: SavedState) -> Broken:
        """(name, reason) of a state's files that are broken, and of what guides it."""
        layout = self.store.layout
        slots = [(layout.latents[state.stage], state.slot)]
        slots += [(array, slot) for array, slot in self._beside(state) if not _is_source(array)]
        broken: Broken = []
        for array, slot in slots:
            broken += self._broken(_files(array, slot))
        return broken

    def _sources(self, state: SavedState | None) -> None:
        """What the render starts from, as far as it is still needed."""
        for array, slot in self._beside(state):
            if not _is_source(array) or (array.name, slot) not in self.held.kept:
                continue
            if broken := self._broken(_files(array, slot)):
                self.found.kept.append((array.name, slot))
                self._tell_source(array, broken)

    def _tell_source(self, array: LatentArray, broken: Broken) -> None:
        """Say that a copy of what the render starts from is lost; its file may be there."""
        sources = [Source(**each) for each in _sources(array, self.store.run["sources"])]
        if not self._is_needed:
            self._add(broken, UNNEEDED)
        elif all(map(is_there, sources)):
            self._add(broken, f"it is taken from {', '.join(x.path for x in sources)} again")
        else:
            lost = next(source for source in sources if not is_there(source))
            gone = f"and {lost.path}, of which it is a copy, is gone or another by now"
            self._add([(name, f"{reason}, {gone}") for name, reason in broken], "")

    def _beside(self, state: SavedState | None) -> Iterator[tuple[LatentArray, int]]:
        layout = self.store.layout
        arrays = {array.name: array for array in layout.latents}
        for name, slot in needed_beside(layout, self.store.num_steps, state):
            yield arrays[name], slot

    def _broken(self, files: Sequence[File]) -> Broken:
        """(name, reason) of those files that are not what was written."""
        self._look_at(files)
        return [("/".join(file), reason) for file in files if (reason := self._seen[file])]

    def _look_at(self, files: Iterable[File]) -> None:
        """Find out what is wrong with files that were not looked at; several at a time."""
        new = [file for file in files if file not in self._seen]
        self.found.num_files += len(new)
        reasons = self.store.directory.each(lambda file: self._reason(*file), new)
        self._seen.update(zip(new, reasons, strict=True))

    def _reason(self, array: str, key: str) -> str:
        """What is wrong with a file; empty where nothing is."""
        data = self.store.directory.read(f"{array}/{key}")
        if data is None:
            return "is missing"
        if not data:
            return "is empty"
        expected = self.store.arrays.expected(array).get(key)
        if expected is not None:
            return "" if digest(data) == expected else "is not what was written there"
        return self._decoded(array, key)

    def _decoded(self, array: str, key: str) -> str:
        """The same where only decoding can tell."""
        opened = self.store.arrays.open(array)
        index = map(int, key.split("/")[1:])
        sides = opened.shards or opened.chunks
        region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, sides, strict=True))
        try:
            self.store.arrays.read(array, opened, region)
        except StoreError:
            return "cannot be decoded"
        return ""

    def _add(self, broken: Broken, again: str) -> None:
        known = {each.name for each in self.found.damage}
        self.found.damage += [Damage(n, reason, again) for n, reason in broken if n not in known]


def _files(array: LatentArray, slot: int) -> list[File]:
    return [(f"{LATENTS}/{array.name}", key) for key in of_slot(array, slot)]


# Arrays that hold what users handed in.
SOURCES = ("init", "given", "upscale", "alpha", "image", "mask", "edits", "control")


def _is_source(array: LatentArray) -> bool:
    return array.name.rpartition("-")[2] in SOURCES


def _sources(array: LatentArray, recorded: Mapping[str, Any]) -> list[Any]:
    """What is recorded of the files that an array holds."""
    number, _, kind = array.name.rpartition("-")
    if kind == "given" or (kind == "init" and number):
        return [recorded[name] for name in ("init", "mask") if name in recorded]
    if kind == "control":
        return [recorded[name] for name in recorded if name.partition("-")[0] == kind]
    if kind != "edits":
        return [recorded[kind]]
    return [recorded[f"edit-{index}"] for index in range(array.shape[2])]
