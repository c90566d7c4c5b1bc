"""A plugin is a file that defines one value; the folder is the registry."""

from __future__ import annotations

import importlib
from importlib import metadata, resources
from types import ModuleType

from .errors import SpecError

FOLDERS = ("families", "methods", "exports")


def names(folder: str) -> tuple[str, ...]:
    """The plugins of a folder, third parties' entry points (`frieze.FOLDER`) included."""
    files = resources.files(f"frieze.renderer.{folder}").iterdir()
    own = {f.name.removesuffix(".py") for f in files if f.name.endswith(".py")}
    others = {point.name for point in metadata.entry_points(group=f"frieze.{folder}")}
    return tuple(sorted((own | others) - {"__init__"}))


def load(folder: str, name: str) -> ModuleType:
    """The plugin's module; raises `SpecError` that lists the folder when there is none."""
    if name not in names(folder):
        raise SpecError(f"no {name!r} in {folder}; there are: {', '.join(names(folder))}")
    for point in metadata.entry_points(group=f"frieze.{folder}", name=name):
        module = point.load()
        assert isinstance(module, ModuleType)
        return module
    return importlib.import_module(f"frieze.renderer.{folder}.{name}")
