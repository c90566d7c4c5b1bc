"""A page for Python: the public names of `frieze.renderer`, by their docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import frieze.renderer
from documentation.markdown import code, definitions, line, page, prose


def pages() -> dict[str, str]:
    made = (part for name in frieze.renderer.__all__ for part in _entry(name))
    return {"python": page("# Public names", prose(frieze.renderer.__doc__ or ""), *made)}


def _entry(name: str) -> Iterator[str]:
    value = getattr(frieze.renderer, name)
    yield f"## {name}"
    doc = inspect.getdoc(value) or ""
    if inspect.isfunction(value):
        yield code(f"{name}{_signature(value)}", "python")
        yield prose(doc)
        return
    if not inspect.isclass(value):
        yield code(re.sub(r"\b[a-z]\w*\.", "", str(value)), "text")
        return
    # A dataclass without a docstring gets its signature as one.
    yield "" if doc.startswith(f"{name}(") else prose(doc)
    if issubclass(value, BaseModel):
        yield definitions(_fields(value))
    elif dataclasses.is_dataclass(value):
        told = [f"{field.name}: {_type(field.type)}" for field in dataclasses.fields(value)]
        yield code("\n".join(told), "python")
    yield definitions(_methods(value))


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        default = field.default
        shown = "" if default is PydanticUndefined else f" (default: `{default!r}`)"
        yield f"`{name}`", f"{line(field.description or '')}{shown}".strip()


def _methods(value: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(value).items():
        doc = inspect.getdoc(member)
        if name.startswith("_") or not doc:
            continue
        if isinstance(member, property):
            yield f"`{name}`", line(doc)
        elif inspect.isfunction(member):
            yield f"`{name}{_signature(member)}`", line(doc)


def _signature(function: Any) -> str:
    """With the names of types alone, one parameter a line where there are many."""
    text = str(inspect.signature(function)).replace("'", "")
    return text if len(text) < 88 else re.sub(r", (?=\w+:|\*)", ",\n    ", text)


def _type(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
