"""Where a render's results go: the store, a TIFF written live, and exports made from the store.

An export into a bucket is made here first, for it is written with seeks, and then sent.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import ExportError
from ..files.atomic import is_there, place_file
from ..files.location import Location, S3Path, location, output, real
from ..files.operations import is_taken
from . import content_credentials, exporting
from .content_credentials import Signing
from .exporting import check_apart, check_export, exporter, pure_path

if TYPE_CHECKING:
    from ..color.conversion import Conversion
    from ..planning.canvas_plan import CanvasPlan
    from ..store.layout import StoreLayout
    from ..store.store import Store


LIVE_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Targets:
    """The store's path, the live TIFF if any, and the exports, in the order they are made."""

    store: Location
    main: Location
    live: Path | None
    exports: tuple[Location, ...]
    overwrite: bool
    left_out: tuple[str, ...] = ()  # recorded files that are not made, and how they would be
    signing: Signing | None = None

    @property
    def all(self) -> tuple[Location, ...]:
        """Every file or folder that is there when the render is done."""
        live = () if self.live is None else (self.live,)
        return tuple(dict.fromkeys((self.store, *live, *self.exports)))

    @property
    def part(self) -> Path | None:
        """The live TIFF's name until it is whole."""
        return None if self.live is None else _part(self.live)

    def record(self) -> dict[str, Any]:
        """JSON values from which `resumed` makes the targets again.

        What lies beside the store is named from there on, and moves with it. Of who signs it says
        nothing, only that somebody is to.
        """
        return {
            "main": _recorded(self.main, self.store),
            "live": None if self.live is None else _recorded(self.live, self.store),
            "exports": [_recorded(path, self.store) for path in self.exports],
            "overwrite": self.overwrite,
            **({} if self.signing is None else {"signed": True}),
        }


def store_of(out: str | Location) -> Location:
    """The store of a picture: `out` itself if that is a .zarr, else beside it."""
    return output(out, ExportError).with_suffix(".zarr")


def targets(
    out: str | Location,
    exports: Sequence[str | Location],
    *,
    overwrite: bool,
    signing: Signing | None = None,
) -> Targets:
    """Decide the paths from `out`'s suffix; raises `ExportError` where one cannot be made.

    What is signed is made from the store: a signature is of the whole file.
    """
    main = output(out, ExportError)
    store = main.with_suffix(".zarr")
    others = tuple(output(path, ExportError) for path in exports)
    check_apart(store, (*(() if main == store else (main,)), *others))
    for path in (main, *others):
        # The store guards its own place: it may replace a store, never a foreign one.
        if path != store:
            check_export(path, overwrite=overwrite)
        elif isinstance(path, Path):
            check_export(path, overwrite=True)
    if signing is not None:
        content_credentials.check((main, *others))
    if main == store:
        return Targets(main, main, None, others, overwrite, signing=signing)
    if main.suffix in LIVE_SUFFIXES and isinstance(main, Path) and signing is None:
        if is_there(_part(main)) and not overwrite:
            raise ExportError(
                f"{_part(main)} is another render's, unfinished; resume that, or use --overwrite"
            )
        return Targets(store, main, main, others, overwrite)
    return Targets(store, main, None, (main, *others), overwrite, signing=signing)


def resumed(
    store: Location,
    record: Mapping[str, Any],
    exports: Sequence[str | Location],
    *,
    overwrite: bool,
    signing: Signing | None = None,
) -> Targets:
    """The targets that a stopped render had, and more exports if asked for.

    A store may come from a stranger: of what it names only what lies beside it is written, and
    nothing is replaced, unless that is asked for here. A store that was moved keeps its files
    beside it. A live TIFF that is no longer there lacks what was drawn into it: it is exported in
    the end, and so is one that is signed now. What was to be signed is not made unsigned. Raises
    `ExportError`.
    """
    store = store.absolute()
    main = store.with_suffix(location(record["main"], ExportError).suffix)
    asked = tuple(output(path, ExportError) for path in exports)
    check_apart(store, asked)
    live, left_out = None, list[str]()
    given = {name: location(name, ExportError) for name in record["exports"]}
    places = [(name, _beside(name, record["main"], store)) for name in given]
    if record["live"] is not None and isinstance(main, Path):
        if _is_live_part(_part(main)):
            live = main
            _check_live(main, overwrite=overwrite)
        if live is None or signing is not None:
            places.insert(0, (str(main), main))
            given[str(main)] = main
    if signing is not None:
        content_credentials.check((*(where or main for _, where in places), *asked))
    is_unsigned = signing is None and record.get("signed") is True
    files = list[Location]()
    for name, beside in places:
        known = given[name]
        where = known if beside is None and known in asked else beside
        if where is None:
            words = f"--also {shlex.quote(name)}"
            left_out.append(f"{name} is elsewhere, and not made unasked; add {words} to have it")
        elif is_unsigned and not is_taken(where):
            words = shlex.join(["frieze", "export", str(store), str(where)])
            left_out.append(
                f"{where} is to be signed, and is not made; add --sign CERT KEY, or make it "
                f"unsigned with: {words}"
            )
        elif where not in asked and isinstance(where, Path) and not where.parent.is_dir():
            left_out.append(f"{where} is not made: there is no folder {where.parent}")
        elif overwrite or not is_taken(where):
            files.append(where)
        elif signing is not None or (record["overwrite"] and where not in asked):
            what = "stays" if signing is None else "stays as it is, signed or not"
            left_out.append(f"{where} is there and {what}; --overwrite replaces it")
    had = {
        store,
        main,
        *(beside for _, beside in places),
        *given.values(),
    }
    files += [path for path in asked if path not in had]
    check_apart(store, (*(() if live is None or live in files else (live,)), *files))
    for path in files:
        check_export(path, overwrite=overwrite)
    return Targets(store, main, live, tuple(files), overwrite, tuple(left_out), signing)


def check_unsigned(store: Location, record: Mapping[str, Any]) -> None:
    """Raise `ExportError` if the files of a store were to be signed, and nobody is to sign now."""
    if record.get("signed") is True:
        raise ExportError(
            f"{store} was begun with --sign, and no store keeps a certificate or key; add "
            "--sign CERT KEY"
        )


def check(made_for: Targets, layout: StoreLayout) -> None:
    """Raise `ExportError` unless every file can hold such a store: before work, not after it."""
    live = () if made_for.live is None else (made_for.live,)
    for path in (*live, *made_for.exports):
        exporter(path).check(path, layout)
    if made_for.signing is not None and made_for.exports:
        content_credentials.check(made_for.exports, layout)


def check_colors(made_for: Targets, colors: Conversion, *, has_alpha: bool) -> None:
    """Raise `ExportError` unless every file can hold such colours: before work as well."""
    live = () if made_for.live is None else (made_for.live,)
    colors.check(made_for.main, has_alpha=has_alpha)
    for path in (*live, *made_for.exports):
        exporting.check_colors(path, colors)


def of_plan(made_for: Targets, plan: CanvasPlan, colors: Conversion) -> Targets:
    """The targets of a plan: a TIFF with alpha, or in other colours, is made from the store."""
    if made_for.live is None or (colors.is_plain and "alpha" not in plan.sources):
        return made_for
    return replace(made_for, live=None, exports=(made_for.live, *made_for.exports))


def prepare_live(made_for: Targets, plan: CanvasPlan, store: Store, *, anew: bool) -> None:
    """Pre-size the live TIFF under its temporary name, or go on with a stopped render's.

    It says of itself what every other file of the store does.
    """
    part = made_for.part
    if part is None or (part.exists() and not anew):
        return
    from ..exports import tiff
    from ..store.provenance import carried_by

    tiff.create_tiled(
        part,
        plan.spec.height,
        plan.spec.width,
        tile=tiff.tile_side(plan.block[0]),
        bits=plan.spec.bits,
        dpi=plan.spec.dpi,
        description=store.provenance,
        carried=carried_by(store),
        overwrite=made_for.overwrite,
    )


def discard_live(made_for: Targets) -> None:
    """Delete a live TIFF that was begun for a store that is gone again."""
    if made_for.part is not None:
        made_for.part.unlink(missing_ok=True)


def finish_live(made_for: Targets) -> None:
    """Give the live TIFF its name, now that it is whole; raises `ExportError` if that is taken.

    One that is to be signed is made from the store instead.
    """
    if made_for.signing is not None:
        discard_live(made_for)
        return
    if made_for.live is not None and made_for.part is not None and made_for.part.exists():
        place_file(made_for.part, made_for.live, overwrite=made_for.overwrite, error=ExportError)


def _part(live: Path) -> Path:
    return live.with_name(live.name + ".part")


def _is_live_part(part: Path) -> bool:
    """Whether it is a file of its own: through a link a store would have another one written."""
    return part.is_file() and not part.is_symlink()


def _check_live(main: Path, *, overwrite: bool) -> None:
    if is_there(main) and not overwrite and not os.path.samefile(main, _part(main)):
        raise ExportError(f"{main} is already there; use --overwrite or another name")


def _recorded(path: Location, store: Location) -> str:
    """A file's name from the store's folder on, if it lies there; else its whole address."""
    if isinstance(path, S3Path) != isinstance(store, S3Path):
        return str(path)
    if isinstance(path, S3Path) and isinstance(store, S3Path) and path.bucket != store.bucket:
        return str(path)
    try:
        name = pure_path(path).relative_to(pure_path(store).parent)
    except ValueError:
        return str(path)
    return str(path) if ".." in name.parts else str(name)


def _beside(name: str, main: str, store: Location) -> Location | None:
    """Where a recorded file lies if that is beside the store, wherever it has been moved to.

    None if it is elsewhere, also through `..` or a link.
    """
    known = location(name, ExportError)
    if isinstance(known, S3Path) or known.is_absolute():
        if _recorded(known, store) != name:
            return known
        # Stores of earlier versions name whole addresses, the main file's as well.
        if (name := _recorded(known, location(main, ExportError))) == str(known):
            return None
    if ".." in Path(name).parts:
        return None
    if isinstance(store, S3Path):
        return replace(store, key=str(PurePosixPath(store.key).parent / name))
    found = store.parent / name
    return found if real(store.parent) in real(found).parents else None
