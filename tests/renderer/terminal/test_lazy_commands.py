"""A list of the commands imports none of them, and says of each what it says of itself."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
from typer.main import get_command

from frieze.renderer.cli import app

# What commands import, and nothing else does.
HEAVY = {"yaml", "frieze.renderer.spec.render_spec", "frieze.renderer.api"}
ASK = f"""
import sys
from frieze.renderer.cli import app
try:
    app.app()
except SystemExit:
    print("imported", *sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize("name", app.Commands.table)
def test_a_command_is_listed_by_the_first_paragraph_of_its_help(name: str) -> None:
    command = get_command(app.app).commands[name]  # type: ignore[attr-defined]
    assert command.name == name
    first = inspect.cleandoc(command.help).split("\n\n")[0]
    assert app.Commands.table[name].about == " ".join(first.split())


@pytest.mark.parametrize(
    ("words", "variables", "imports"),
    [
        (["--help"], {}, False),
        ([], {}, False),
        (
            [],
            {"_FRIEZE_COMPLETE": "complete_bash", "COMP_WORDS": "frieze re", "COMP_CWORD": "1"},
            False,
        ),
        (["methods", "none"], {}, True),  # the control
    ],
    ids=["help", "no word", "a command is completed", "control"],
)
def test_a_list_of_commands_imports_none(
    words: list[str], variables: dict[str, str], imports: bool
) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", ASK, *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout
    assert (asked.stderr.split()[1:] != []) == imports, asked.stderr
