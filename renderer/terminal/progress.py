"""How a render is shown while it works: bars, plain lines, JSON lines, or not at all."""

from __future__ import annotations

import logging
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ..errors import line
from ..events import Event
from ..monitoring.durations import span
from ..monitoring.time_left import of_facts
from .text import remark, result, show_on

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

WORK = frozenset({"stage", "step", "decode", "block", "export", "done"})
BEGIN = ("stage", "decode")
# While the newest of these events is one of the first, a render looks between its steps, or blocks,
# whether it should stop.
STEPPING = frozenset({"stage", "step", "save", "decode", "block"})
NOT_STEPPING = frozenset({"plan", "failure", "recovered", "resized", "export", "done", "ended"})
# A save is part of its step; a failure is said when it is over, an end as an error.
UNSHOWN = frozenset({"save", "failure", "ended"})


class Pace:
    """Seconds per step or block: the median of the last few, so that one stall does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self, done: int = 0) -> None:
        """Forget what was measured: a new stage has steps of another size."""
        self._seconds: deque[float] = deque(maxlen=8)
        self._count, self._since = done, self._clock()

    def count(self, done: int, seconds: float = 0.0) -> None:
        """`done` are finished by now; the newest took `seconds`, or as long as we waited for it."""
        now, new = self._clock(), done - self._count
        if new > 0:
            self._seconds.append(seconds or (now - self._since) / new)
            self._count, self._since = done, now

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s" if self._seconds else ""

    @property
    def seconds(self) -> float:
        """Seconds for one, 0 before the first."""
        return statistics.median(self._seconds) if self._seconds else 0.0


def steps(event: Event, did: bool) -> bool:
    """Whether a render is between steps after an event, if it was before or `did`."""
    return event.kind in STEPPING or (did and event.kind not in NOT_STEPPING)


class Display(Protocol):
    """What a terminal shows and renews by itself."""

    def start(self) -> None:
        """Show it."""

    def stop(self) -> None:
        """Leave its last state standing."""


class Progress(logging.Handler):
    """Shows events; this one shows none. Warnings logged below `frieze` are shown as notes.

    `began` says whether work has been done, so that a failure is no longer bad input;
    `is_stepping` whether the work looks soon whether it should stop. A live `display` is on the
    terminal for as long as this listens.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._display: Display | None = None
        self.began = False
        self.is_stepping = False
        self._turn = threading.RLock()

    def __call__(self, event: Event) -> None:
        self.began = self.began or event.kind in WORK
        self.is_stepping = steps(event, self.is_stepping)
        with self._turn:
            self.show(event)

    def show(self, event: Event) -> None:
        """Put one event before the user's eyes."""

    def emit(self, record: logging.LogRecord) -> None:
        """A logged warning is a note."""
        self(Event("note", message=record.getMessage()))

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.start()
        logging.getLogger("frieze").addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger("frieze").removeHandler(self)
        if self._display is not None:
            self._display.stop()


class JsonLines(Progress):
    """Every event as one JSON object on what is stdout when this is made."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout

    def show(self, event: Event) -> None:
        result(event.to_json(), stream=self._stream)


class Lines(Progress):
    """Plain lines on stderr; of steps and blocks the last, and one every `every` seconds."""

    def __init__(self, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every, self._clock = every, clock
        self._pace, self._shown = Pace(clock), -every

    def show(self, event: Event) -> None:
        if event.kind in UNSHOWN:
            return
        done, total = _counts(event)
        if event.kind in BEGIN:
            self._pace.restart(done)
        elif total:
            self._pace.count(done, event.seconds)
            if done < total and self._clock() - self._shown < self._every:
                return
            self._shown = self._clock()
        remark(self._line(event, done, total))

    def _line(self, event: Event, done: int, total: int) -> str:
        if not total or event.kind in BEGIN:
            return _title(event)
        what = f"{_title(event)}: {event.kind} {done}/{total}, {self._pace} each"
        return ", ".join([what, *_told(event)])


class Bars(Progress):
    """One bar per stage and one for the decode, on a terminal's stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace()
        self._task: TaskID | None = None
        self._own_pace = ""  # what stays on its bar when it is over
        self._display = self._bars = _bars()

    def show(self, event: Event) -> None:
        if event.kind in UNSHOWN:
            return
        done, total = _counts(event)
        if event.kind in BEGIN and total:
            self._begin(event, done, total)
        elif total:
            self._advance(event, done, total)
        else:
            show_on(self._bars.console, _title(event))

    def _begin(self, event: Event, done: int, total: int) -> None:
        if self._task is not None:  # the newest bar alone says what is left
            self._bars.update(self._task, pace=self._own_pace)
        self._pace.restart(done)
        self._own_pace = ""
        self._task = self._bars.add_task(
            line(_title(event)), completed=done, total=total or None, unit="", pace=""
        )

    def _advance(self, event: Event, done: int, total: int) -> None:
        if self._task is None:
            self._begin(event, 0, total)
        assert self._task is not None
        self._pace.count(done, event.seconds)
        self._own_pace = f"{self._pace}/{event.kind}"
        self._bars.update(
            self._task,
            completed=done,
            total=total,
            unit=f"{event.kind} {done}/{total}",
            pace=" · ".join([self._own_pace, *_told(event)]),
        )


def choose(*, json: bool, quiet: bool) -> Progress:
    """How to show a render to whoever started it."""
    if quiet:
        return Progress()
    if json:
        return JsonLines()
    return Bars() if sys.stderr.isatty() else Lines()


def _bars() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[unit]}", style="progress.download"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", style="progress.remaining"),
        console=Console(stderr=True),
        expand=True,
    )


def _counts(event: Event) -> tuple[int, int]:
    if event.kind in ("stage", "step"):
        return event.step, event.num_steps
    if event.kind in ("decode", "block"):
        return event.blocks, event.num_blocks
    return 0, 0


def _told(event: Event) -> list[str]:
    """What an event tells beside its numbers: a training's loss; about 1:05 left of the whole."""
    loss, left = event.facts.get("loss"), of_facts(event.facts)
    told = [] if loss is None else [f"loss {loss:.4g}"]
    return [*told, str(left)] if left and left.seconds else told


def _title(event: Event) -> str:
    if event.kind == "stage":
        return f"stage {event.stage}/{event.num_stages} {event.message}".rstrip()
    if event.kind == "step":
        return f"stage {event.stage}/{event.num_stages}"
    if event.kind in ("decode", "block"):
        return "decode"
    if event.kind == "export":
        return f"writing {event.message}"
    if event.kind == "done":
        return f"done in {span(event.seconds)}"
    return event.message
