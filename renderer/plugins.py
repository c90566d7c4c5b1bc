"""A plugin is a file that defines one value; the folder is the registry."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import SpecError

if TYPE_CHECKING:
    from importlib import metadata

FOLDERS = ("families", "methods", "exports")


def names(folder: str) -> tuple[str, ...]:
    """The plugins of a folder, third parties' entry points (`frieze.FOLDER`) included."""
    from importlib import resources

    files = resources.files(f"frieze.renderer.{folder}").iterdir()
    own = {f.name.removesuffix(".py") for f in files if f.name.endswith(".py")}
    return tuple(sorted((own | _others(folder).keys()) - {"__init__"}))


def load(folder: str, name: str) -> ModuleType:
    """The plugin's module; raises `SpecError` that lists the folder when there is none."""
    if name not in names(folder):
        raise SpecError(f"no {name!r} in {folder}; there are: {', '.join(names(folder))}")
    if point := _others(folder).get(name):
        module = point.load()
        assert isinstance(module, ModuleType)
        return module
    return importlib.import_module(f"frieze.renderer.{folder}.{name}")


@functools.cache
def _others(folder: str) -> dict[str, metadata.EntryPoint]:
    from importlib import metadata

    # Every installed package is read for these: tens of milliseconds.
    return {point.name: point for point in metadata.entry_points(group=f"frieze.{folder}")}
