"""The command line as tests use it: in this process, or as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from frieze.renderer.cli import app

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
