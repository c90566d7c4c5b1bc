"""A page for each command: what it does, its arguments and options, and examples of the README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from documentation.markdown import code, definitions, line, page, prose, slug, toctree
from frieze.renderer.cli import app

# Pages that list what an option may be.
LISTS = {
    "--method": "methods",
    "--strategy": "strategies",
    "--model": "families",
    "--watermark": "watermarks",
}
LISTS |= {"--preset": "presets", "--out": "exports", "--also": "exports"}


def commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and group of commands, by its words."""
    for name, command in (group or get_command(app.app)).commands.items():
        yield f"{before}{name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")


def path_of(words: str) -> str:
    return f"commands/{slug(words)}"


def pages(root: Path) -> dict[str, str]:
    readme = (root / "README.md").read_text(encoding="utf-8")
    found = dict(commands())
    made = {path_of(words): _page(words, c, examples(readme, words)) for words, c in found.items()}
    listed = ((f"[`frieze {w}`](/{path_of(w)}.md)", _summary(c)) for w, c in found.items())
    made["commands/index"] = page(
        "# Commands", definitions(listed), toctree(Path(path).name for path in made)
    )
    return made


def examples(text: str, words: str) -> list[str]:
    """Lines of a page's blocks that call a command, with their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = re.findall(r"(?:.*\\\n)*.*\n?", "\n".join(blocks))
    called = re.compile(rf"^(?:ray job submit -- )?frieze {re.escape(words)}(?= |$)", re.MULTILINE)
    return [found.rstrip() for found in lines if called.match(found)]


def _summary(command: Any) -> str:
    return line((command.help or "").split("\n\n")[0])


def _page(words: str, command: Any, shown: list[str]) -> str:
    context = command.make_context(words, [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    inner = getattr(command, "commands", {})
    return page(
        f"# frieze {words}",
        prose(command.help or ""),
        code(f"frieze {usage}", "text"),
        definitions(
            (f"[`frieze {words} {name}`](/{path_of(f'{words} {name}')}.md)", _summary(each))
            for name, each in inner.items()
        ),
        f"## Examples\n\n{code(chr(10).join(shown), 'sh')}" if shown else "",
        *_parameters(command, context),
    )


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """Arguments, then options by the panels of the help."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None or parameter.name == "help":
            continue
        of_argument = parameter.param_type_name == "argument"
        panel = parameter.rich_help_panel or ("Arguments" if of_argument else "Options")
        panels.setdefault(panel, []).append((f"`{record[0].strip()}`", _meaning(parameter, record)))
    for name, entries in panels.items():
        yield f"## {name}\n\n{definitions(entries)}"


def _meaning(parameter: Any, record: tuple[str, str]) -> str:
    lists = {LISTS[flag]: None for flag in parameter.opts if flag in LISTS}
    return "; ".join([line(record[1]), *(f"[{name}](/{name}/index.md)" for name in lists)])
