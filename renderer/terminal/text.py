"""The one way for text to a terminal: results on stdout, what is said meanwhile on stderr.

Much of it others wrote: prompts, names of files, stores and models from elsewhere, logs of jobs.
What would move a cursor, hide, or turn the direction of writing is shown escaped.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from ..errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def result(*lines: object, stream: TextIO | None = None) -> None:
    """Print results, a line each, on stdout, or on what was stdout once."""
    for text in lines:
        print(printable(text, kept="\n\t"), file=stream or sys.stdout, flush=True)


def remark(*lines: object) -> None:
    """Print lines on stderr, which belong to no result."""
    for text in lines:
        print(printable(text, kept="\n\t"), file=sys.stderr, flush=True)


def show_on(console: Console, text: object) -> None:
    """Print a text above what a live display shows, without reading marks or emoji into it."""
    console.print(printable(text, kept="\n\t"), markup=False, highlight=False, emoji=False)


def guard() -> None:
    """Let what Python itself prints, tracebacks and stray warnings, go the same way."""
    sys.excepthook = lambda *error: remark("".join(traceback.format_exception(*error)).rstrip())
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Plain())


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n\t")


def copied(text: str) -> None:
    """Print what another program printed, as it is but for its control characters."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    sys.stdout.write(printable(plain, kept="\n\t"))
    sys.stdout.flush()
