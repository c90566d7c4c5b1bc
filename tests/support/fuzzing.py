"""Input that nobody meant, kind by kind, and what becomes of it: accepted, one line, or a fault.

A kind is a strategy for examples and what is done with one. A fault is any error besides the
documented ones, and any message that is not one printable line of at most 1,200 letters. The
command line's last handler would make one line of it as well, so that all calls are below it.
"""

from __future__ import annotations

import gc
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import hypothesis
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from frieze.renderer.errors import MOST_LETTERS, FriezeError, line, shown
from frieze.renderer.terminal import error_lines

ROUND = 500  # examples that are tried at a time
HUNG = 120  # seconds after which an example counts as one that hangs


class HangingError(BaseException):
    """An example took so long that a user would call it hanging."""


@dataclass(frozen=True)
class Kind:
    """Examples, and what is done with one: it ends well or raises.

    One costs as much time as `cost` others, so that `tally` tries as many fewer.
    """

    name: str
    examples: SearchStrategy[Any]
    act: Callable[[Any], object]
    cost: int = 1


@dataclass
class Tally:
    """How many examples of a kind were tried, and how they ended."""

    kind: str
    tried: int = 0
    accepted: int = 0
    one_line: int = 0
    faults: list[str] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)

    def row(self) -> str:
        """As a row of a table in Markdown."""
        counts = (self.tried, self.accepted, self.one_line, len(self.faults))
        return " | ".join(["", self.kind, *map(str, counts), ""]).strip()

    def told(self) -> str:
        """Each fault once, the most frequent first."""
        found = Counter(text.split("\n", 1)[0] for text in self.faults)
        firsts = {text.split("\n", 1)[0]: text for text in reversed(self.faults)}
        return "\n\n".join(f"{count} x {firsts[head]}" for head, count in found.most_common(20))

    def __iadd__(self, other: Tally) -> Tally:
        """Count what another round found as well."""
        self.tried += other.tried
        self.accepted += other.accepted
        self.one_line += other.one_line
        self.faults += other.faults
        self.messages.update(other.messages)
        return self

    def add(self, example: Any, act: Callable[[Any], object]) -> None:
        """Try one example."""
        self.tried += 1
        try:
            with _watched():
                act(example)
        except (typer.Exit, SystemExit):
            self.accepted += 1
        except error_lines.expected() as error:
            told = error_lines.message_of(error)
            self._judge(told if isinstance(error, FriezeError) else line(told), example)
        except (Exception, HangingError) as error:  # what this is for
            self.faults.append(_fault(error, example))
        else:
            self.accepted += 1

    def _judge(self, message: str, example: Any) -> None:
        if message == line(message) and 0 < len(message) <= MOST_LETTERS:
            self.one_line += 1
            self.messages[message[:60]] += 1
        else:
            self.faults.append(f"no printable line: {message[:2000]!r}\n  {shown(example)}")


def tally(kind: Kind, number: int, seed: int = 0) -> Tally:
    """The same `number` examples of a kind at every call, or so many fewer as one costs more.

    Another seed has other examples.
    """
    found = Tally(kind.name)

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(1, number // kind.cost),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.examples)
    def attempt(example: Any) -> None:
        found.add(example, kind.act)

    attempt()
    return found


def tallies(kind: Kind, number: int, tried: int = 0) -> Iterator[Tally]:
    """So many examples of a kind in rounds of other ones, whatever one costs, after `tried`.

    What is there is not looked through for garbage at each draw any more: that would be what
    draws take most of their time for.
    """
    gc.collect()
    gc.freeze()
    try:
        while tried < number:
            size = min(max(1, ROUND // kind.cost), number - tried)
            found = tally(kind, size * kind.cost, seed=tried)
            tried += found.tried
            yield found
    finally:
        gc.unfreeze()


@contextmanager
def _watched() -> Iterator[None]:
    """Raises `HangingError` in what takes too long."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise HangingError(f"more than {HUNG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HUNG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _fault(error: BaseException, example: Any) -> str:
    """Where it came from, as a first line that is the same for the same place; then an example."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename][-1]
    last = frames[-1]
    place = f"{ours.filename.rpartition('/')[2]}:{ours.lineno} > {last.filename}:{last.lineno}"
    return f"{type(error).__name__} at {place}\n  {line(error)[:300]}\n  {shown(example)}"
