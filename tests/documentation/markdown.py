"""Texts of the product as Markdown: docstrings, help, links, code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

ARXIV = re.compile(r"(?:arXiv\s+)(\d{4}\.\d{4,5})")
RESULT = re.compile(r"tests/bench/results/(\w+)\.md")
_SPAN = re.compile(r"(`+[^`]+`+)")


def prose(text: str) -> str:
    """A docstring or help as Markdown: only its code spans and indented blocks are markup.

    What it says of shapes is for who reads the code.
    """
    text = re.sub(r"\s*Shape suffixes:.*?(?=\n\s*\n|\Z)", "", inspect.cleandoc(text), flags=re.S)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(p if p.startswith("    ") else _escaped(p) for p in paragraphs)


def _escaped(text: str) -> str:
    parts = _SPAN.split(text)
    parts[::2] = [re.sub(r"([\\*<\[\]|]|\b_|_\b)", r"\\\1", part) for part in parts[::2]]
    return linked("".join(parts))


def linked(text: str) -> str:
    """With links to the papers and the results that it names."""
    text = RESULT.sub(lambda found: f"[{found[0]}](/results/{found[1]}.md)", text)
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def line(text: str) -> str:
    """The same on one line."""
    return " ".join(prose(text).split())


def code(text: str, language: str = "") -> str:
    """A block of code, whatever it holds."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms with what each means."""
    return "\n\n".join(f"{term}\n: {meaning or 'not described'}" for term, meaning in pairs)


def toctree(names: Iterable[str], caption: str = "", hidden: bool = True) -> str:
    """The pages below this one, in the sidebar."""
    options = [*([f":caption: {caption}"] if caption else []), *([":hidden:"] if hidden else [])]
    return "\n".join(["```{toctree}", *options, "", *names, "```"])


def slug(text: str) -> str:
    """A name that files and labels may have."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def page(*parts: str) -> str:
    """Parts of a page, those that are empty left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
