"""Where a render's results go: the store, a TIFF written live, and exports made from the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import plugins
from .errors import ExportError
from .locations import Location, S3Path, location

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
    exports: tuple[Path, ...]
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
    return location(out, ExportError).absolute().with_suffix(".zarr")


def targets(out: str, exports: Sequence[str | Path], *, overwrite: bool) -> Targets:
    """Decide the paths from `out`'s suffix; raises `ExportError` where one cannot be made."""
    main = location(out, ExportError).absolute()
    others = tuple(_file(path) for path in exports)
    if isinstance(main, S3Path):
        if main.suffix != ".zarr":
            raise ExportError(
                f"{main}: a bucket holds stores, not files; use --out {main.with_suffix('.zarr')} "
                f"--also {main.name}, or later: frieze export {main.with_suffix('.zarr')} "
                f"{main.name}"
            )
        for path in others:
            _check(path, overwrite=overwrite)
        return Targets(main, main, None, others, overwrite)
    for path in (main, *others):
        # The store guards its own folder: it may replace a store, never a foreign one.
        _check(path, overwrite=overwrite or (path == main and path.suffix == ".zarr"))
    store = store_of(out)
    if main == store:
        return Targets(main, main, None, others, overwrite)
    if main.suffix in LIVE_SUFFIXES:
        return Targets(store, main, main, others, overwrite)
    return Targets(store, main, None, (main, *others), overwrite)


def resumed(
    store: Location, record: dict[str, Any], exports: Sequence[str | Path], *, overwrite: bool
) -> Targets:
    """The targets that a stopped render had, and more exports if asked for.

    A store that was moved, or comes from another host, keeps its main file beside it. A live TIFF
    that is no longer there lacks what was drawn into it: it is exported in the end.
    """
    store = store.absolute()
    main = store.with_suffix(location(record["main"], ExportError).suffix)
    recorded = tuple(Path(path) for path in record["exports"])
    live = None
    if record["live"] is not None and isinstance(main, Path):
        if _part(main).exists():
            live = main
        else:
            recorded = (main, *recorded)
    had = {str(main), record["main"], *record["exports"]}
    asked = (_file(path) for path in exports)
    more = tuple(path for path in asked if str(path) not in had)
    allowed = overwrite or bool(record["overwrite"])
    missing = tuple(path for path in recorded if allowed or not path.exists())
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
    """Give the live TIFF its name, now that it is whole."""
    if made_for.live is not None and made_for.part is not None and made_for.part.exists():
        os.replace(made_for.part, made_for.live)


def export(store: str | Location, out: str | Path, *, overwrite: bool, **options: Any) -> Path:
    """Write a store as the format that `out`'s suffix names."""
    file = _file(out)
    made = exporter(file).export(store, str(out), overwrite=overwrite, **options)
    assert isinstance(made, Path)
    return made


def exporter(out: Path) -> ModuleType:
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


def _file(path: str | Path) -> Path:
    """Where an export is to lie: made with seeks, it cannot be written into a bucket."""
    where = location(path, ExportError)
    if isinstance(where, S3Path):
        raise ExportError(
            f"{where}: a bucket holds stores, not files; use a path such as {where.name}, and "
            "copy the file when it is there"
        )
    return where.absolute()


def _check(path: Path, *, overwrite: bool) -> None:
    if path.suffix != ".zarr":
        exporter(path)
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"{path}: the folder {path.parent} cannot be written; choose another")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} is already there; use --overwrite or another name")
