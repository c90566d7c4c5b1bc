"""What becomes of a batch's items: their states, kept in a journal from which another run goes on.

The journal lies in the output folder, or under the prefix of a bucket, as a store's does.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import SpecError, StoreError
from ..events import Event
from ..files.location import Location
from ..files.operations import is_taken, replace
from ..monitoring.time_left import Left
from ..store.directory import store_directory
from .items import Item, inside

ItemState = Literal["queued", "running", "failed", "done"]


@dataclass(frozen=True)
class ItemResult:
    """What became of one item.

    `seconds` is the wall time of its last attempt, `retries` the number of those before it,
    `error` one line if it failed; `outputs` are the files and folders that are there.
    """

    name: str
    state: Literal["done", "failed"]
    path: Location
    outputs: tuple[Location, ...]
    width: int
    height: int
    seconds: float
    retries: int
    error: str | None = None


@dataclass(frozen=True)
class ItemEvent:
    """One thing that happened to an item: its new state, or what its render told (`event`).

    `left` is the time left of the whole batch, where that is known.
    """

    name: str
    state: ItemState
    event: Event | None = None
    seconds: float = 0.0
    error: str | None = None
    left: Left | None = None

    def to_json(self) -> str:
        """One line of JSON: {"event": "item", "item": ..., "state": ...}, or the render's event."""
        whole = {f"batch_{k}": v for k, v in (self.left.facts() if self.left else {}).items()}
        if self.event is not None:
            return json.dumps({**self.event.as_json(), "item": self.name, **whole})
        told = {"seconds": round(self.seconds, 3), "error": self.error}
        about = {"event": "item", "item": self.name, "state": self.state}
        return json.dumps(about | {key: value for key, value in told.items() if value} | whole)


class ItemStates:
    """The states of a batch's items; safe to tell from many threads of the one driver."""

    def __init__(self, root: Location, items: Iterable[Item]) -> None:
        self.root = root
        self.items = {item.name: item for item in items}
        self.states: dict[str, ItemState] = dict.fromkeys(self.items, "queued")
        self.results: dict[str, ItemResult] = {}
        self.journal = store_directory(root).journal()
        self._seen: list[dict[str, Any]] = []
        self._begun: set[str] = set()
        self._turn = threading.Lock()

    def look_back(self, *, continued: bool) -> None:
        """Take up what an earlier run left; raises `SpecError` where there is something to spoil.

        Nothing is written.
        """
        self._seen = past = self._past()
        if past and not continued:
            raise SpecError(
                f"{self.root} holds a batch already; use --continue to go on with it, "
                "or another --out"
            )
        digests: dict[str, str] = {}
        for event in past:
            if event["event"] == "batch":
                digests |= event["items"]
            elif event["event"] == "item" and event["name"] in self.items:
                self._recall(event)
        store_directory(self.root).each(self._requeue_if_gone, list(self.results))
        for name in self.items:
            if name in self._begun and digests.get(name) != self.items[name].digest:
                raise SpecError(
                    f"item {name!r} was begun otherwise in {self.root}; give what is new "
                    "another name, or use another --out"
                )

    def begin(self) -> None:
        """Make this process the folder's driver, and write down which pictures are meant."""
        folder = self.root / "frieze"
        if not inside(self.root, folder):
            raise StoreError(f"{folder} leads out of {self.root}; remove it")
        if isinstance(folder, Path):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self.root} cannot be written: {error.strerror}") from None
        self.journal.claim()
        if self.journal.read() != self._seen:
            self.journal.release()
            raise StoreError(f"{self.root} was at work until now; go on with it again")
        digests = {name: item.digest for name, item in self.items.items()}
        self.journal.append({"event": "batch", "items": digests})

    def is_begun(self, name: str) -> bool:
        """Whether an attempt at the item was made, here or in an earlier run."""
        return name in self._begun

    def enter(self, name: str, state: ItemState) -> None:
        """An item waits again, or is being drawn."""
        with self._turn:
            self.states[name] = state
            if state == "running":
                self._begun.add(name)
        self.journal.append({"event": "item", "name": name, "state": state})

    def settle(self, result: ItemResult, trace: str | None = None) -> None:
        """An item's end."""
        with self._turn:
            self.states[result.name] = result.state
            self.results[result.name] = result
        about = self._about(result) | ({"trace": trace} if trace else {})
        self.journal.append({"event": "item", **about})

    def count(self, state: ItemState) -> int:
        """Items in a state."""
        return Counter(self.states.values())[state]

    def report(self, source: str, seconds: float) -> Location:
        """Write report.json, whole; returns its path."""
        path = self.root / "report.json"
        items = [self._line(item) for item in self.items.values()]
        totals = {state: self.count(state) for state in ("done", "failed", "running", "queued")}
        totals |= {"items": len(items), "retries": sum(line["retries"] for line in items)}
        about = {"batch": source, "items": items, "totals": totals | {"seconds": round(seconds, 3)}}
        replace(path, f"{json.dumps(about, indent=1)}\n".encode())
        return path

    def _past(self) -> list[dict[str, Any]]:
        try:
            return self.journal.read()
        except NotADirectoryError:
            raise StoreError(f"{self.root} is no folder; use another --out") from None

    def _recall(self, event: Mapping[str, Any]) -> None:
        name, state = event["name"], event["state"]
        item = self.items[name]
        if state == "running":
            self._begun.add(name)
        self.states[name], _ = "queued", self.results.pop(name, None)
        if state == "done":
            outputs = tuple(self.root / path for path in event["outputs"])
            kept = {key: event[key] for key in ("width", "height", "seconds", "retries")}
            self.results[name] = ItemResult(name, "done", item.main, outputs, **kept)
            self.states[name] = "done"

    def _requeue_if_gone(self, name: str) -> None:
        """Forget that an item was done if a file of it is gone."""
        if not all(map(is_taken, self.items[name].outputs)):
            self.states[name] = "queued"
            del self.results[name]

    def _line(self, item: Item) -> dict[str, Any]:
        if result := self.results.get(item.name):
            return self._about(result)
        size = (item.spec.width, item.spec.height)
        about = ItemResult(item.name, "failed", item.main, (), *size, seconds=0.0, retries=0)
        return self._about(about) | {"state": self.states[item.name]}

    def _about(self, result: ItemResult) -> dict[str, Any]:
        """A result as JSON, its paths from the output folder on."""
        return asdict(result) | {
            "path": self._name(result.path),
            "outputs": [self._name(path) for path in result.outputs],
            "seconds": round(result.seconds, 3),
        }

    def _name(self, path: Any) -> str:
        return str(path.relative_to(self.root))
