"""What a render with a fault goes through, and the processes whose events tell of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frieze.renderer import Event

TIMEOUT = 120.0  # --timeout of each render, in seconds
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
# A node's loss is noticed seconds later: many steps, so that it happens to one of them.
LONG = SMALL | {
    "stages": [{"scale": 0.5, "steps": 3}, {"scale": 1.0, "start": 0.6, "steps": 40}],
}
STEP_SECONDS = 0.5  # a long render's pause after each step that follows the fault


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
    _newest: tuple[int, int] = (0, 0)

    def strike(self) -> None:
        self.at = time.monotonic()

    def listen(self, event: Event) -> None:
        since = 0.0 if self.at is None else time.monotonic() - self.at
        if event.kind == "failure" and self.detected is None:
            self.detected = since
        if event.kind == "step":
            self.redone += (event.stage, event.step) <= self._newest
            self._newest = max(self._newest, (event.stage, event.step))
        if event.kind in ("step", "block") and self.detected is not None and not self.resumed:
            self.resumed = since

    def row(self) -> str:
        def shown(seconds: float | None) -> str:
            return "" if seconds is None else f"{seconds:.1f} s"

        place = f"{self.place[0]} {self.place[1]}"
        cells = (self.fault, place, shown(self.detected), shown(self.resumed), str(self.redone))
        return "| " + " | ".join((*cells, self.end)) + " |"

    def dumps(self) -> str:
        """One line of JSON."""
        return json.dumps({k: v for k, v in asdict(self).items() if not k.startswith("_")})

    @classmethod
    def loads(cls, line: str) -> Story:
        """What `dumps` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "place": tuple(fields["place"])})


@contextlib.contextmanager
def script(code: str, **values: Any) -> Iterator[Iterator[Event]]:
    """The events of a render in a process of its own, which is killed when the block ends."""
    code = code.format(tests=str(Path(__file__).parents[1]), **values)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield events(process)
    finally:
        process.kill()
        process.communicate()


def logged(log: Path, process: subprocess.Popen[str]) -> Iterator[Event]:
    """The events of a render as its log grows, until its process ends."""
    done = 0
    while True:
        has_ended = process.poll() is not None
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        for line in lines[done:]:
            if line.endswith("\n"):
                done += 1
                yield parsed(line)
        if has_ended:
            return
        time.sleep(0.02)


def parsed(line: str) -> Event:
    fields = json.loads(line)
    known = ("stage", "step", "blocks", "seconds", "message")
    more = {name: fields[name] for name in known if name in fields}
    return Event(fields["event"], **more)


def events(process: subprocess.Popen[str]) -> Iterator[Event]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"event"'):  # the others are Ray's own words
            yield parsed(line)
    assert process.wait() == 0, process.stderr and process.stderr.read()[-2000:]
