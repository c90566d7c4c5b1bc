"""A file made from a store, by its suffix."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from .. import plugins
from ..codecs.output import Output
from ..color.conversion import Conversion
from ..errors import ExportError, StoreError
from ..files.atomic import is_there
from ..files.location import Location, S3Path, location, output, real
from ..files.scratch import scratch
from ..spec.options import checked_options
from ..store.follower import Follow
from ..store.provenance import color_of, dpi_of
from ..store.store import Store
from . import content_credentials, upload
from .content_credentials import Signing


class NoOptions(BaseModel):
    """Of a format that takes none."""


def export(
    store: str | Location,
    out: str | Location,
    *,
    overwrite: bool,
    follow: Follow = False,
    dpi: float | None = None,
    color: str | None = None,
    intent: str | None = None,
    options: Mapping[str, Any] | None = None,
    signing: Signing | None = None,
) -> Location:
    """Write a store as the format that `out`'s suffix names, signed if asked to; returns where.

    In which colours says `color_of`, of `color` and `intent`. `options` are the format's own, by
    name, as values or as a person writes them.
    """
    where = output(out, ExportError)
    module = exporter(where)
    if not isinstance(where, Path):
        check_export(where, overwrite=overwrite)
    name = module.__name__.rpartition(".")[2]
    taken: type[BaseModel] = getattr(module, "Options", NoOptions)
    chosen = checked_options(taken, options or {}, "export", name)
    given = () if taken is NoOptions else (chosen,)
    found = Store.open(store)
    check_apart(location(store, StoreError).absolute(), (where,))
    if hasattr(module, "color_spaces") or color is not None or intent is not None:
        check_colors(where, color_of(found, where, color, intent))
    dots = dpi_of(found, dpi)

    def write(path: Path, *, overwrite: bool) -> Path:
        output = Output(found, path, dots, color, intent, overwrite, follow)
        if signing is not None:
            return _export_signed(module, output, given, signing)
        made = module.export(output, *given)
        assert isinstance(made, Path)
        return made

    if isinstance(where, Path):
        return write(Path(str(out)), overwrite=overwrite)
    with scratch(name="frieze-export") as folder:
        made = write(folder / where.name, overwrite=False)
        if kind := _of_folder(module):
            upload.send_folder(made, where, kind, overwrite=overwrite)
        else:
            upload.send_file(made, where, overwrite=overwrite)
    return where


def _export_signed(
    module: ModuleType, output: Output, options: Sequence[BaseModel], signing: Signing
) -> Path:
    """The same of a file here: it is written beside its place, signed as a copy, then named."""
    out, layout = output.path, output.layout
    check_export(out, overwrite=output.overwrite)
    matter = len(inspect.signature(module.check).parameters) > 2
    module.check(out, layout, *(options if matter else ()))
    content_credentials.check((out,), layout)
    with output.file() as part:
        folder = part.parent / "unsigned"
        folder.mkdir()
        made = module.export(replace(output, path=folder / out.name), *options)
        content_credentials.sign(made, part, output.store, signing)
    return out


def exporter(out: Location) -> ModuleType:
    """The export plugin for a path's suffix; raises `ExportError` that lists the suffixes."""
    known: dict[str, ModuleType] = {}
    for name in plugins.names("exports"):
        module = plugins.load("exports", name)
        known |= dict.fromkeys(module.suffixes, module)
    if out.suffix.lower() not in known:
        raise ExportError(f"{out}: no format {out.suffix!r}; there are {', '.join(sorted(known))}")
    return known[out.suffix.lower()]


def check_colors(out: Location, colors: Conversion) -> None:
    """Raise `ExportError` unless the format of a path holds such colours: its `color_spaces`.

    One that has none of these holds the store's own pixels.
    """
    if colors.is_plain or colors.space in getattr(exporter(out), "color_spaces", ()):
        return
    modules = (plugins.load("exports", name) for name in plugins.names("exports"))
    able = [m.suffixes[0] for m in modules if colors.space in getattr(m, "color_spaces", ())]
    what = "no CMYK" if colors.space == "CMYK" else "no colours but the store's own"
    raise ExportError(
        f"{out}: {out.suffix} files hold {what}, and {colors.target.name} is asked for; "
        f"{', '.join(able)} work"
    )


def check_apart(store: Location, files: Sequence[Location]) -> None:
    """Raise `ExportError` if two of these are one place, or one lies in another, links followed."""
    seen = [store]
    for path in files:
        for other in seen:
            what = "the store itself" if other is store else str(other)
            if _is_same(path, other):
                fault = "is the store itself" if other is store else f"is {other} once more"
                raise ExportError(f"{path} {fault}; give each file a name of its own")
            if real(other) in real(path).parents:
                raise ExportError(f"{path} lies in {what}; use another name")
            if real(path) in real(other).parents:
                raise ExportError(f"{path} would hold {what}; use another name")
        seen.append(path)


def _is_same(one: Location, other: Location) -> bool:
    if real(one) == real(other):
        return True
    both = isinstance(one, Path) and isinstance(other, Path)
    return both and one.exists() and other.exists() and os.path.samefile(one, other)  # type: ignore[union-attr,arg-type]


def pure_path(where: Location) -> PurePath:
    """The parts of a path, or of the key in a bucket."""
    return PurePosixPath(where.key) if isinstance(where, S3Path) else where


def _of_folder(module: Any) -> upload.FolderFormat | None:
    """The format, if it is a folder's."""
    return module if hasattr(module, "last") else None


def check_export(path: Location, *, overwrite: bool) -> None:
    """Raise `ExportError` or `StoreError` unless a file can be put there; leaves nothing."""
    if isinstance(path, S3Path):
        if kind := _of_folder(exporter(path)):
            upload.check_folder(path, kind, overwrite=overwrite)
        else:
            upload.check_file(path, overwrite=overwrite)
        return
    if path.suffix != ".zarr":
        exporter(path)
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"{path}: the folder {path.parent} cannot be written; choose another")
    if is_there(path) and not overwrite:
        raise ExportError(f"{path} is already there; use --overwrite or another name")
