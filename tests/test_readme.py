"""What README.md and its like say of commands, flags, methods, families and files is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from frieze.renderer import plugins
from frieze.renderer.cli import app
from frieze.renderer.spec.presets import preset_names
from support.command_line import parsed

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("README.md", "CONTRIBUTING.md", "configs/batches/example.yaml")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Flags of Typer's own.
OTHERS = {"--help", "--install-completion"}


def group() -> Any:
    return get_command(app.app)


def commands(text: str) -> Iterator[list[str]]:
    """Words of every command of ours in the blocks of a page, without what a shell reads."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "frieze" in words:
                words = words[words.index("frieze") + 1 :]
                yield words[: words.index(">")] if ">" in words else words


def flags() -> set[str]:
    whole = [group()]
    for command in whole:
        whole += getattr(command, "commands", {}).values()
    options = (option for command in whole for option in command.params)
    return OTHERS | {flag for o in options for flag in (*o.opts, *o.secondary_opts)}


def test_every_command_of_the_readme_is_taken() -> None:
    told = list(commands((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(told) > 20
    assert {words[0] for words in told} >= group().commands.keys()
    for words in told:
        if words[0] not in OTHERS:
            parsed(words)


def test_control_a_command_that_is_not_taken_is_seen() -> None:
    (words,) = commands("```sh\nfrieze render x --sise 3  # no such flag\n```")
    with pytest.raises(Exception, match="sise"):
        parsed(words)


@pytest.mark.parametrize("name", TEXTS)
def test_every_flag_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(FLAG.findall(text)) <= flags()


def test_tables_and_lists_name_what_there_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        set(re.findall(r"`(\w+)`", line.split("|")[1]))
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    named = {name for row in rows for name in row}
    assert named == {*plugins.names("families"), *plugins.names("methods")}
    assert {name for name in preset_names() if f"`{name}`" in text} == {*preset_names()} - {"demo"}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
