"""`frieze methods`, `models` and `exports`: the plugins there are, as their modules describe them.

A module's docstring says in its first line what it is; the papers that it names are its sources.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from .. import plugins
from ..errors import SpecError
from ..terminal.text import result
from .options import completions
from .options.arguments import Json, as_json

SOURCE = re.compile(r"arXiv\s+\d{4}\.\d{4,5}|(?<=\()\w+, (?:19|20)\d\d(?=\))")
Record = dict[str, Any]


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="print the options of this method; default: list all",
            autocompletion=completions.methods,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the extrapolation methods, or say what one does and what it can be told."""
    if name is not None:
        plugins.load("methods", name)  # raises what the list would print
    for each in [name] if name else plugins.names("methods"):
        record = _described("methods", each, ())
        if json:
            result(as_json(record, event="method"))
        else:
            result(*(_page(record) if name else [_line(record, record["sources"])]))


def models(json: Json = False) -> None:
    """List the families of models, the pipelines that they serve, and what they were trained on."""
    for name in plugins.names("families"):
        record = _read("families", name, ("pipelines", "training_sizes"))
        if json:
            result(as_json(record, event="family"))
            continue
        sizes = record.get("training_sizes") or ()
        trained = (
            " or ".join(f"{size} x {size}" for size in sizes) or "as a checkpoint's config says"
        )
        pipelines = ", ".join(record.get("pipelines") or ())
        result(
            _line(record), *([f"{'':<12} {pipelines}; trained size {trained}"] if pipelines else [])
        )


def exports(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="print the options of this format; default: list all",
            autocompletion=completions.exports,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the formats of finished files, and the suffixes of --out that ask for them.

    With a NAME: what one can be told, as --option of `frieze export`.
    """
    if name is not None:
        plugins.load("exports", name)  # raises what the list would print
        record = _described("exports", name, ("suffixes",))
        result(*([as_json(record, event="export")] if json else _page(record)))
        return
    for name in plugins.names("exports"):
        record = _stated(name)
        if json:
            result(as_json(record, event="export"))
        else:
            suffixes = ", ".join(record.get("suffixes") or ())
            result(_line(record), *([f"{'':<12} {suffixes}"] if suffixes else []))


def _described(kind: str, name: str, stated: tuple[str, ...]) -> Record:
    """What a plugin's module says, with the JSON schema of its options."""
    record = _read(kind, name, (*stated, "__doc__"))
    doc = record.pop("__doc__", None) or ""
    more = doc.partition("\n\n")[2].partition("\n\n")[0]
    record["text"] = _joined(more.partition("Shape suffixes:")[0])
    record["sources"] = list(dict.fromkeys(_joined(found) for found in SOURCE.findall(doc)))
    record["options"] = completions.option_schemas(kind, name) if "fault" not in record else {}
    return record


def _read(kind: str, name: str, stated: tuple[str, ...]) -> Record:
    """A plugin's name, first line and what it states; where it cannot be loaded, why."""
    try:
        module = plugins.load(kind, name)
    except SpecError as error:
        return {"name": name, "summary": "", "fault": str(error)}
    doc = module.__doc__ or ""
    more = {key: getattr(module, key) for key in stated if hasattr(module, key)}
    return {"name": name, "summary": _summary(doc), **more}


def _stated(name: str) -> Record:
    """The same of a format, from its text where that states it: an import would take a second."""
    tree = completions.syntax("exports", name)
    suffixes = completions.suffixes_in(tree) if tree else ()
    if tree is None or not suffixes:
        return _read("exports", name, ("suffixes",))
    return {"name": name, "summary": _summary(ast.get_docstring(tree) or ""), "suffixes": suffixes}


def _summary(doc: str) -> str:
    return _joined(doc.strip().split("\n\n")[0].splitlines()[0] if doc.strip() else "")


def _joined(text: str) -> str:
    return " ".join(text.split())


def _line(record: Mapping[str, Any], more: Any = ()) -> str:
    """A plugin in a line; in brackets what more there is and its first line does not say."""
    summary = record.get("fault") or record["summary"] or "no description"
    unsaid = [text for text in more if text not in summary]
    return f"{record['name']:<12} {summary}" + (f" ({', '.join(unsaid)})" if unsaid else "")


def _page(record: Record) -> Iterator[str]:
    """A plugin in lines: what it does, its sources or suffixes, its options."""
    from ..spec.options import default_text, meaning

    yield _line(record)
    if record["text"]:
        yield f"\n{record['text']}"
    if "suffixes" in record:
        yield f"\nsuffixes: {', '.join(record['suffixes'])}"
    else:
        yield f"\nsource: {', '.join(record['sources']) or 'Frieze itself'}"
    if not record["options"]:
        yield "options: none"
        return
    yield "options, each as --option NAME=VALUE:"
    for option, schema in record["options"].items():
        told = schema.get("description", "")
        default = "" if "; default" in told else f"; default: {default_text(schema)}"
        yield f"  {option:<14} {meaning(schema)}"
        yield f"  {'':<14} {told or 'no description'}{default}"
