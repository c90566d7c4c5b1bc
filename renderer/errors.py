"""What can go wrong, drawn first.

FriezeError
├── SpecError(ValueError)              a field of the spec is unknown or out of range
├── ModelError(ValueError)             the model folder is missing, foreign, corrupt or unsafe
├── PlanError(ValueError)              the picture cannot be drawn as asked; says what would work
├── MediaError(ValueError)             a picture or clip handed in cannot be read
├── StoreError(OSError)                the working store is missing, corrupt or in the way
│   ├── FingerprintError(ValueError)   the store belongs to another spec, model or version
│   └── TakenOverError                 another process draws into the store by now
├── ExportError(OSError)               a finished picture cannot be written in that format
├── SubmitError(RuntimeError)          a cluster cannot be reached or does not take the job
├── RenderCancelledError               the caller asked to stop; the store can be resumed
└── RenderFailedError(RuntimeError)    a worker was lost or broke; the store can be resumed
    └── NotFiniteError(ArithmeticError) NaN or infinity came out; the store keeps what was finite

Every message says what, the value, and what would work, in one printable line.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

MOST_LETTERS = 1200  # of a message
TAIL = 300  # of these the last, where a longer one says what would work


class FriezeError(Exception):
    """Root of every error that Frieze raises for its users; its message is made one `line`."""

    def __init__(self, message: object = "", *rest: object) -> None:
        super().__init__(line(message), *rest)


class SpecError(FriezeError, ValueError):
    """A field of the spec is unknown or out of range."""


class ModelError(FriezeError, ValueError):
    """The model folder is missing, foreign, corrupt or unsafe."""


class PlanError(FriezeError, ValueError):
    """The picture cannot be drawn as asked."""


class MediaError(FriezeError, ValueError):
    """A picture or clip handed in is missing, damaged or of another kind."""


class StoreError(FriezeError, OSError):
    """The working store is missing, corrupt or in the way."""


class FingerprintError(StoreError, ValueError):
    """The store belongs to another spec, model or version."""


class TakenOverError(StoreError):
    """Another process draws into the store by now: this one must not go on."""


class ExportError(FriezeError, OSError):
    """A picture cannot be written in that format or place."""


class SubmitError(FriezeError, RuntimeError):
    """A cluster cannot be reached, refuses us, or does not take the job."""


class RenderCancelledError(FriezeError):
    """The caller asked to stop; what was saved can be resumed."""


class RenderFailedError(FriezeError, RuntimeError):
    """A worker was lost or broke; what was saved can be resumed."""


def line(text: object) -> str:
    """A text as one printable line of at most `MOST_LETTERS`, whoever wrote it.

    Breaks of lines are spaces; what would move a terminal's cursor, or is no text, is escaped; of
    a longer text the middle is left out.
    """
    joined = re.sub(r"\s*[^\S ]\s*", " ", str(text)).strip()
    if len(joined) > MOST_LETTERS:
        joined = _shortened(joined)
    plain = printable(joined)
    return _shortened(plain) if len(plain) > MOST_LETTERS else plain


def reason(error: BaseException, most: int = MOST_LETTERS) -> str:
    """What an error of others' code says, as a part of one line; its type where it is silent."""
    return line(error)[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """What a library's error says first, where the rest is traces and advice; or its type."""
    lines = str(error).strip().splitlines()
    return line(lines[0]) if lines else type(error).__name__


def printable(text: object, kept: str = "") -> str:
    """A text in which all that is not printed is escaped, but for the letters in `kept`.

    And but for the joiners of letters and of emoji, which are part of how words are written.
    """
    letters = str(text)
    if letters.isprintable():
        return letters
    stays = f"{kept}\u200c\u200d"
    return "".join(c if c.isprintable() or c in stays else repr(c)[1:-1] for c in letters)


def _shortened(text: str) -> str:
    return f"{text[: MOST_LETTERS - TAIL - 5]} ... {text[-TAIL:]}"


class _Shown(reprlib.Repr):
    """Python's own shortening, for integers too that are too long to be written out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlist = self.maxtuple = self.maxdict = 8

    def repr_int(self, x: int, level: int) -> str:
        digits = math.floor(x.bit_length() * math.log10(2)) + 1
        return repr(x) if digits <= 60 else f"a whole number of about {digits} digits"


def shown(value: Any) -> str:
    """A value as an error names it: its `repr`, shortened where that is long or deep."""
    return _Shown().repr(value)


class NotFiniteError(RenderFailedError, ArithmeticError):
    """NaN or infinity came out of a model; the store keeps what was finite."""
