"""Expected errors, told as one line and an exit code: the command group that wraps every command.

Exit codes: 2 bad input, nothing was done; 1 the work failed; 130 it was stopped; 70 (sysexits.h) a
fault of Frieze, whose traceback is printed if it was asked for.
"""

from __future__ import annotations

import difflib
import json as jsonlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from ..errors import FriezeError, RenderCancelledError, RenderFailedError, line
from . import interrupts
from .interrupts import CANCELLED
from .lazy_commands import CommandTable, LazyCommand
from .text import remark, result

# What the driver may meet from below; looked up only when loaded, for they import torch or ray.
CLUSTER_ERRORS = {
    "frieze.cluster.comm": "CommError",
    "frieze.cluster.bands": "BandError",
    "frieze.cluster.fleet": "FleetError",
}
BAD_INPUT, FAILED, FAULT = 2, 1, 70
MOST_TOLD = 600  # letters of a fault's own message
TRACEBACK = "FRIEZE_TRACEBACK"  # the variable; --traceback, on any command, is the same


class ErrorLineGroup(TyperGroup):
    """The command group; an expected error becomes one line on stderr and an exit code.

    A list of commands imports none of those in the `table`.
    """

    table: ClassVar[Mapping[str, LazyCommand]] = {}

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.commands = CommandTable({**self.table, **self.commands}, self.rich_markup_mode)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with self._listed():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._listed():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listed(self) -> Iterator[None]:
        """Within this, commands have a name and a help alone."""
        commands = self.commands
        if isinstance(commands, CommandTable):
            self.commands = commands.listed()
        try:
            yield
        finally:
            self.commands = commands

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        extra |= {"standalone_mode": False, "prog_name": "frieze"}
        words, in_full = _without_traceback(words)
        try:
            code = super().main(words, *rest, **extra)
        except BrokenPipeError:  # whoever read the output has left, as `frieze plan | head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = FAILED
        except expected() as error:
            code = _tell(error, json="--json" in words)
        except Exception as error:  # a fault of ours
            if in_full:
                raise
            code = _tell(error, json="--json" in words)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, context: Any) -> Any:
        """A command that was stopped says so, whatever libraries made of it."""
        try:
            return super().invoke(context)
        except RenderCancelledError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or interrupts.is_ending():
                raise RenderCancelledError(interrupts.told()) from None
            raise


def _without_traceback(words: list[str]) -> tuple[list[str], bool]:
    """The words of a command without --traceback, and whether a fault is to be shown in full."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--traceback"] + words[end:]
    return kept, len(kept) < len(words) or os.environ.get(TRACEBACK, "0") not in ("", "0")


def expected() -> tuple[type[Exception], ...]:
    """The errors that are told as one line, the loaded part of the cluster's included."""
    return (typer.TyperException, typer.Abort, FriezeError, *_cluster_errors())


def _cluster_errors() -> tuple[type[Exception], ...]:
    loaded = ((sys.modules.get(module), name) for module, name in CLUSTER_ERRORS.items())
    return tuple(getattr(module, name) for module, name in loaded if module)


def _tell(error: Exception, *, json: bool) -> int:
    """Print the error as one line, for machines as a last object too; returns the exit code."""
    message, code = line(message_of(error)), _exit_code(error)
    if code == CANCELLED and not interrupts.is_first_word():
        return code
    if json:
        fields = {"error": type(error).__name__, "message": message, "exit_code": code}
        result(jsonlib.dumps({"event": "error", **fields}))
    remark(f"frieze: {message}")
    return code


def _exit_code(error: Exception) -> int:
    if isinstance(error, (RenderCancelledError, typer.Abort)):
        return CANCELLED
    if isinstance(error, (RenderFailedError, *_cluster_errors())):
        return FAILED
    return BAD_INPUT if isinstance(error, expected()) else FAULT


def message_of(error: Exception) -> str:
    """What a user is told of an error."""
    if not isinstance(error, expected()):
        return (
            f"{type(error).__name__}: {line(error)[:MOST_TOLD]}; this is a fault of Frieze: "
            f"--traceback, or {TRACEBACK}=1, shows where"
        )
    if not isinstance(error, typer.TyperException):
        return str(error) or "stopped"  # of an Abort
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    context, unknown = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if context is None:
        return message
    if unknown is None or not hasattr(error, "possibilities"):
        return f"{message}; see {context.command_path} --help"
    flags = [f for p in context.command.params for f in (*p.opts, *p.secondary_opts) if f[0] == "-"]
    return f"no option {unknown}; the nearest is {max(flags, key=partial(_likeness, unknown))}"


def _likeness(word: str, flag: str) -> float:
    """How alike a mistyped flag and a flag, or one of its words, are; in [0, 1]."""
    word = word.strip("-")
    known = [flag.strip("-"), *flag.strip("-").split("-")]
    return max(difflib.SequenceMatcher(None, word, each).ratio() for each in known)
