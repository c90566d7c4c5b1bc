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


def check(words: Sequence[str]) -> None:
    """Raises what our command line would say of these words; nothing is run."""
    group: Any = get_command(app.app)
    assert isinstance(group, TyperGroup)
    with group.make_context("frieze", []) as parent:
        context = group.commands[words[0]].make_context(words[0], [*words[1:]], parent=parent)
        if words[0] == "submit":
            name, *rest = context.params["words"]
            inner = group.commands[name].make_context(name, rest, parent=parent)
            submit.ERRANDS[name]([name, *rest], inner.params)
        if words[0] == "render":
            submit.render_request(words, context.params)
