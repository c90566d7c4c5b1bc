"""A plugin is a file that defines one value; the folder is the registry.

Another distribution adds one through an entry point in the group `frieze.KIND`, whose name is the
plugin's and whose value is its module.
"""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import SpecError, line

if TYPE_CHECKING:
    from importlib import metadata


@dataclass(frozen=True)
class Kind:
    """Where the plugins of a kind that ship with Frieze lie, and what each must define."""

    package: str
    defines: tuple[str, ...]


KINDS = {
    "families": Kind(
        "frieze.renderer.families", ("pipelines", "describe", "load", "encode", "text_shapes")
    ),
    "methods": Kind("frieze.renderer.methods", ("method",)),
    "exports": Kind("frieze.renderer.exports", ("suffixes", "check", "export")),
    "strategies": Kind("frieze.cluster.strategies", ("predict",)),
    "watermarks": Kind("frieze.renderer.watermarks", ("mark",)),
}


def names(kind: str) -> tuple[str, ...]:
    """The plugins of a kind, third parties' entry points (`frieze.KIND`) included."""
    from importlib import resources

    files = resources.files(KINDS[kind].package).iterdir()
    own = {f.name.removesuffix(".py") for f in files if f.name.endswith(".py")}
    return tuple(sorted((own | _others(kind, tuple(sys.path)).keys()) - {"__init__"}))


def check(kind: str, name: str) -> None:
    """Raise `SpecError` that lists a kind when there is no such plugin; none is loaded."""
    if name not in names(kind):
        raise SpecError(f"no {name!r} in {kind}; there are: {', '.join(names(kind))}")


def load(kind: str, name: str) -> ModuleType:
    """The plugin's module; raises `SpecError` that lists its kind when there is none.

    And that says why where another distribution's does not load, or is no plugin of this kind.
    """
    check(kind, name)
    where = _module(kind, name)
    try:
        module = importlib.import_module(where)
    except (ImportError, SyntaxError) as error:
        raise SpecError(f"{name!r} of {kind} ({where}) cannot be loaded: {line(error)}") from error
    if missing := [each for each in KINDS[kind].defines if not hasattr(module, each)]:
        raise SpecError(f"{name!r} of {kind} ({where}) does not define {', '.join(missing)}")
    return module


def source(kind: str, name: str) -> Path | None:
    """The plugin's file, None where it is none; nothing of it is run."""
    try:
        spec = find_spec(_module(kind, name))
    except ImportError:  # of a package around it
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _module(kind: str, name: str) -> str:
    """The dotted name of a plugin's module."""
    point = _others(kind, tuple(sys.path)).get(name)
    return point.module if point else f"{KINDS[kind].package}.{name}"


@functools.cache
def _others(kind: str, path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """Entry points of what is installed on `path`, which is sys.path, by name."""
    from importlib import metadata

    # Every installed package is read for these: tens of milliseconds.
    return {point.name: point for point in metadata.entry_points(group=f"frieze.{kind}")}
