"""How a batch is shown while it works: a live table, plain lines, JSON lines, or not at all."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..batches.item_states import ItemEvent, ItemState
from ..errors import line
from ..events import Event
from ..monitoring.durations import span
from ..monitoring.time_left import Left, of_facts
from .progress import Progress, steps
from .text import remark, result, show_on

if TYPE_CHECKING:
    from rich.table import Table

MOST_ENDED = 6  # rows of the table for items that have ended
ENDS: tuple[ItemState, ...] = ("done", "failed")
PACED, NEWS = ("step", "block"), ("failure", "recovered", "resized")


@dataclass
class Row:
    """What is shown of an item: its state, how far it is, and since when."""

    name: str
    state: ItemState
    doing: str = ""
    since: float = field(default_factory=time.monotonic)


class BatchProgress(Progress):
    """Listens to a batch's items; this one shows none. Warnings are notes, as for one render."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, ItemState] = {}
        self._stepping: set[str] = set()
        self.left: Left | None = None  # of the whole batch

    def item(self, event: ItemEvent) -> None:
        """Put what happened to an item before the user's eyes."""
        with self._turn:
            self.began = True
            self.states[event.name] = event.state
            self.left = event.left or self.left
            self._count_steps(event)
            self.tell(event)

    def _count_steps(self, event: ItemEvent) -> None:
        """A batch looks whether it should stop while any of its items does."""
        did = event.name in self._stepping
        if event.state == "running" and event.event is not None and steps(event.event, did):
            self._stepping.add(event.name)
        else:
            self._stepping.discard(event.name)
        self.is_stepping = bool(self._stepping)

    def count(self, *states: ItemState) -> int:
        """Items in one of the states."""
        return sum(state in states for state in self.states.values())

    def whole(self) -> str:
        """, about 1:05 left: of the batch, where that is known."""
        return f", {self.left}" if self.left and self.left.seconds else ""

    def tell(self, event: ItemEvent) -> None:
        """Show it."""


class JsonRoster(BatchProgress):
    """Every event as one JSON object on what is stdout when this is made."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout

    def tell(self, event: ItemEvent) -> None:
        result(event.to_json(), stream=self._stream)

    def show(self, event: Event) -> None:
        result(event.to_json(), stream=self._stream)


class LineRoster(BatchProgress):
    """Plain lines on stderr: every state, and of steps one every `every` seconds."""

    def __init__(self, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every, self._clock = every, clock
        self._shown = clock()

    def tell(self, event: ItemEvent) -> None:
        doing, told = what(event), event.event
        is_news = event.error is not None or event.seconds > 0
        if told is not None:
            is_late = self._clock() - self._shown >= self._every
            is_news = told.kind in NEWS or (told.kind in PACED and is_late)
        if is_news:
            self._shown = self._clock()
            ended = f"{self.count(*ENDS)}/{len(self.states)}{self.whole()}"
            remark(line(f"[{ended}] {event.name}: {doing}"))

    def show(self, event: Event) -> None:
        remark(event.message)


class TableRoster(BatchProgress):
    """A live table on a terminal's stderr: what is drawn, the last that ended, the counts."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self.running: dict[str, Row] = {}
        self.ended: deque[Row] = deque(maxlen=MOST_ENDED)
        self._display = self._live = Live(
            console=Console(stderr=True), get_renderable=self.table, refresh_per_second=4
        )

    def tell(self, event: ItemEvent) -> None:
        if event.state in ENDS:
            self.running.pop(event.name, None)
            self.ended.append(Row(event.name, event.state, what(event)))
        elif event.state == "queued":
            self.running.pop(event.name, None)
            if event.error:
                self.show(Event("note", message=f"{event.name}: {what(event)}"))
        else:
            row = self.running.setdefault(event.name, Row(event.name, "running"))
            row.doing = what(event) or row.doing

    def show(self, event: Event) -> None:
        show_on(self._live.console, event.message)

    def table(self) -> Table:
        """The table as it is now."""
        with self._turn:
            return self._table()

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table(title=self._title(), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("item", "state", ""):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        rows: Sequence[Row] = (*self.ended, *self.running.values())
        styles = {"done": "green", "failed": "red", "running": "cyan", "queued": "dim"}
        for row in rows:
            doing = f"{row.doing}  {span(now - row.since)}" if row.state == "running" else row.doing
            name, state = Text(line(row.name)), Text(row.state, styles[row.state])
            table.add_row(name, state, Text(line(doing)))
        return table

    def _title(self) -> str:
        states: tuple[ItemState, ...] = ("done", "failed", "running", "queued")
        return ", ".join(f"{self.count(state)} {state}" for state in states) + self.whole()


def choose(*, json: bool, quiet: bool) -> BatchProgress:
    """How to show a batch to whoever started it."""
    if quiet:
        return BatchProgress()
    if json:
        return JsonRoster()
    return TableRoster() if sys.stderr.isatty() else LineRoster()


def what(event: ItemEvent) -> str:
    """What an item does, or how it ended, in a few words."""
    if event.state == "failed":
        return f"failed: {event.error}"
    if event.state == "done":
        return f"done in {span(event.seconds)}" if event.seconds else "done before"
    if event.error:
        return f"to be tried again: {event.error}"
    told = event.event
    if told is None:
        return event.state
    found = of_facts(told.facts)
    left = f", {found}" if found and found.seconds else ""
    if told.kind in ("stage", "step"):
        return f"stage {told.stage}/{told.num_stages}, step {told.step}/{told.num_steps}{left}"
    if told.kind in ("decode", "block"):
        return f"block {told.blocks}/{told.num_blocks}{left}"
    return told.message if told.kind in ("export", *NEWS) else ""
