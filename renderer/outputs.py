"""Where a render's results go: the store, a TIFF written live, and exports made from the store.

An export into a bucket is made here first, for it is written with seeks, and then sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import plugins, uploads
from .errors import ExportError, StoreError
from .homes import is_taken
from .locations import Location, S3Path, location, output
from .scratch import scratch
from .whole import is_there, place_file

if TYPE_CHECKING:
    from .pixels import StoreLayout
    from .plan import CanvasPlan

LIVE_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Targets:
    """The store's path, the live TIFF if any, and the exports, in the order they are made."""

    store: Location
    main: Location
    live: Path | None
    exports: tuple[Location, ...]
    overwrite: bool

    @property
    def all(self) -> tuple[Location, ...]:
        """Every file or folder that is there when the render is done."""
        live = () if self.live is None else (self.live,)
        return (self.store, *live, *self.exports)

    @property
    def part(self) -> Path | None:
        """The live TIFF's name until it is whole."""
        return None if self.live is None else _part(self.live)

    def record(self) -> dict[str, Any]:
        """JSON values from which `resumed` makes the targets again."""
        return {
            "main": str(self.main),
            "live": None if self.live is None else str(self.live),
            "exports": [str(path) for path in self.exports],
            "overwrite": self.overwrite,
        }


def store_of(out: str) -> Location:
    """The store of a picture: `out` itself if that is a .zarr, else beside it."""
    return output(out, ExportError).with_suffix(".zarr")


def targets(out: str, exports: Sequence[str | Location], *, overwrite: bool) -> Targets:
    """Decide the paths from `out`'s suffix; raises `ExportError` where one cannot be made."""
    main = output(out, ExportError)
    store = store_of(out)
    others = tuple(_outside(path, store) for path in exports)
    for path in (main, *others):
        # The store guards its own place: it may replace a store, never a foreign one.
        if path != store:
            _check(path, overwrite=overwrite)
        elif isinstance(path, Path):
            _check(path, overwrite=True)
    if main == store:
        return Targets(main, main, None, others, overwrite)
    if main.suffix in LIVE_SUFFIXES and isinstance(main, Path):
        return Targets(store, main, main, others, overwrite)
    return Targets(store, main, None, (main, *others), overwrite)


def resumed(
    store: Location, record: dict[str, Any], exports: Sequence[str | Location], *, overwrite: bool
) -> Targets:
    """The targets that a stopped render had, and more exports if asked for.

    A store that was moved, or comes from another host, keeps its main file beside it. A live TIFF
    that is no longer there lacks what was drawn into it: it is exported in the end.
    """
    store = store.absolute()
    main = store.with_suffix(location(record["main"], ExportError).suffix)
    recorded = tuple(location(path, ExportError) for path in record["exports"])
    live = None
    if record["live"] is not None and isinstance(main, Path):
        if _part(main).exists():
            live = main
        else:
            recorded = (main, *recorded)
    had = {str(main), record["main"], *record["exports"]}
    asked = (_outside(path, store) for path in exports)
    more = tuple(path for path in asked if str(path) not in had)
    allowed = overwrite or bool(record["overwrite"])
    missing = tuple(path for path in recorded if allowed or not is_taken(path))
    for path in (*missing, *more):
        _check(path, overwrite=allowed)
    return Targets(store, main, live, missing + more, allowed)


def check(made_for: Targets, layout: StoreLayout) -> None:
    """Raise `ExportError` unless every file can hold such a store: before work, not after it."""
    live = () if made_for.live is None else (made_for.live,)
    for path in (*live, *made_for.exports):
        exporter(path).check(path, layout)


def prepare_live(made_for: Targets, plan: CanvasPlan) -> None:
    """Pre-size the live TIFF under its temporary name, unless a stopped render left it."""
    part = made_for.part
    if part is None or part.exists():
        return
    from .exports import tiff

    tiff.create_tiled(
        part,
        plan.spec.height,
        plan.spec.width,
        tile=tiff.tile_side(plan.block[0]),
        bits=plan.spec.bits,
        dpi=plan.spec.dpi,
        description=plan.spec.picture(),
    )


def finish_live(made_for: Targets) -> None:
    """Give the live TIFF its name, now that it is whole; raises `ExportError` if that is taken."""
    if made_for.live is not None and made_for.part is not None and made_for.part.exists():
        place_file(made_for.part, made_for.live, overwrite=made_for.overwrite, error=ExportError)


def export(
    store: str | Location, out: str | Location, *, overwrite: bool, **options: Any
) -> Location:
    """Write a store as the format that `out`'s suffix names; returns where it is."""
    where = _outside(out, location(store, StoreError))
    module = exporter(where)
    if isinstance(where, Path):
        made = module.export(store, str(out), overwrite=overwrite, **options)
        assert isinstance(made, Path)
        return made
    _check(where, overwrite=overwrite)
    with scratch(name="frieze-export") as folder:
        made = module.export(store, str(folder / where.name), **options)
        if kind := _of_folder(module):
            uploads.send_folder(made, where, kind, overwrite=overwrite)
        else:
            uploads.send_file(made, where, overwrite=overwrite)
    return where


def exporter(out: Location) -> ModuleType:
    """The export plugin for a path's suffix; raises `ExportError` that lists the suffixes."""
    known: dict[str, ModuleType] = {}
    for name in plugins.names("exports"):
        module = plugins.load("exports", name)
        known |= dict.fromkeys(module.suffixes, module)
    if out.suffix.lower() not in known:
        raise ExportError(f"{out}: no format {out.suffix!r}; there are {', '.join(sorted(known))}")
    return known[out.suffix.lower()]


def _part(live: Path) -> Path:
    return live.with_name(live.name + ".part")


def _outside(path: str | Location, store: Location) -> Location:
    """Where an export is to lie; raises `ExportError` if that is in a bucket and in the store."""
    where = output(path, ExportError)
    if isinstance(where, S3Path) and store in (where, *where.parents):
        raise ExportError(f"{where} lies in the store itself; use another name")
    return where


def _of_folder(module: Any) -> uploads.FolderFormat | None:
    """The format, if it is a folder's."""
    return module if hasattr(module, "last") else None


def _check(path: Location, *, overwrite: bool) -> None:
    if isinstance(path, S3Path):
        if kind := _of_folder(exporter(path)):
            uploads.check_folder(path, kind, overwrite=overwrite)
        else:
            uploads.check_file(path, overwrite=overwrite)
        return
    if path.suffix != ".zarr":
        exporter(path)
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"{path}: the folder {path.parent} cannot be written; choose another")
    if is_there(path) and not overwrite:
        raise ExportError(f"{path} is already there; use --overwrite or another name")
