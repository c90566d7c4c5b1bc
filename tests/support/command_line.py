"""The command line as tests use it: in this process, or as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from frieze.renderer.cli import app, submit

MAIN = "\nfrom frieze.renderer.cli.app import main; main()"


def frieze(*words: str) -> Result:
    return CliRunner().invoke(app.app, words)


def process(*words: str, program: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program + MAIN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(result: Result, *parts: str, code: int = 2) -> None:
    """One line on stderr, nothing on stdout, the code, and every part in the line."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("frieze: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def make_store(folder: Path) -> str:
    (folder / "a b.zarr" / "frieze").mkdir(parents=True)
    (folder / "a b.zarr" / "frieze" / "run.json").write_text("{}")
    return str(folder / "a b.zarr")


def parsed(words: Sequence[str]) -> Any:
    """The context of a command with these words; raises what our command line would say."""
    command: Any = get_command(app.app)
    parent = command.make_context("frieze", [], resilient_parsing=True)
    name, rest = "frieze", [*words]
    while isinstance(command, TyperGroup):
        name, *rest = rest
        command = command.commands[name]
    return command.make_context(name, rest, parent=parent)


def check(words: Sequence[str]) -> None:
    """The same, and what a cluster could not do: read files or write them on this host alone."""
    context = parsed(words)
    if words[0] == "submit":
        name, *rest = context.params["words"]
        submit.ERRANDS[name]([name, *rest], parsed([name, *rest]).params)
    if words[0] == "render":
        submit.render_request(words, context.params)
