"""What a store holds, by its journal: blocks, states and kept arrays that are whole, and digests.

What an event says stands until a later one says otherwise, or that it was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BlockId = str
Digests = str  # of files in their order, put together


@dataclass(frozen=True)
class SavedState:
    """A saved state: all latents of `stage` after `step` steps, in `slot`."""

    stage: int
    step: int
    slot: int


class Reuse(NamedTuple):
    """How a step cache stands at a state.

    Each half of the guidance was `computed` last after so many of the stage's steps, and `reused`
    evaluations of the network were none, of all stages.
    """

    computed: tuple[int, ...] = ()
    reused: int = 0


@dataclass
class Inventory:
    """Empty digests: none were taken. `levels` is None until the pyramid is whole.

    `lost_lines` are the lines of the journal that were found damaged, and whose loss is made up.
    """

    blocks: dict[BlockId, Digests] = field(default_factory=dict)
    states: dict[SavedState, Digests] = field(default_factory=dict)
    kept: dict[tuple[str, int], Digests] = field(default_factory=dict)
    levels: dict[int, Digests] | None = None
    entropies: dict[int, list[dict[str, list[float]]]] = field(default_factory=dict)
    lost_lines: set[str] = field(default_factory=set)
    reuse: dict[SavedState, Reuse] = field(default_factory=dict)
    _focused: set[SavedState] = field(default_factory=set)

    def usable(self) -> list[SavedState]:
        """States in the order they were saved, but those whose stage's measurements are lost."""
        return [s for s in self.states if s not in self._focused or s.stage in self.entropies]

    def newest_in(self, stage: int, slot: int) -> SavedState | None:
        """The last state that was written to a slot: the one that is there."""
        found = [s for s in self.states if (s.stage, s.slot) == (stage, slot)]
        return found[-1] if found else None

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in the next event."""
        if act := getattr(self, f"_add_{event['event']}", None):
            act(event)

    def _add_block(self, event: Mapping[str, Any]) -> None:
        ids = event.get("ids") or ([event["id"]] if event.get("id") else [])
        self.blocks.update(ids if isinstance(ids, dict) else dict.fromkeys(ids, ""))

    def _add_state(self, event: Mapping[str, Any]) -> None:
        state = SavedState(event["stage"], event["step"], event["slot"])
        self.states.pop(state, None)  # one that was saved again is the newest
        self.states[state] = event.get("sums", "")
        self.reuse[state] = Reuse(tuple(event.get("computed", ())), event.get("reused", 0))
        if event.get("focus"):
            self._focused.add(state)

    def _add_focus(self, event: Mapping[str, Any]) -> None:
        self.entropies[event["stage"]] = event["entropies"]

    def _add_kept(self, event: Mapping[str, Any]) -> None:
        self.kept[event["array"], event["slot"]] = event["sums"]

    def _add_finished(self, event: Mapping[str, Any]) -> None:
        self.levels = {int(level): sums for level, sums in event.get("levels", {}).items()}

    def _add_lost(self, event: Mapping[str, Any]) -> None:
        for block in event.get("blocks", ()):
            self.blocks.pop(block, None)
        for state in event.get("states", ()):
            self.states.pop(SavedState(*state), None)
        for kept in event.get("kept", ()):
            self.kept.pop((kept[0], kept[1]), None)
        self.lost_lines.update(event.get("lines", ()))
        if event.get("blocks") or event.get("levels"):
            self.levels = None


def inventory(events: Iterable[Mapping[str, Any]]) -> Inventory:
    """What a journal's events come to."""
    found = Inventory()
    for event in events:
        found.add(event)
    return found
