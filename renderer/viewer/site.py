"""`frieze view --export`: the page and all finished pictures as files, for any web server.

The same page and the same addresses as the server's, with JPEG tiles. What says where a picture was
drawn, its workers and failures, stays out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from ..codecs.tile_encoder import TileEncoder
from ..errors import ExportError, StoreError
from ..exports.deep_zoom import descriptor
from ..files.atomic import whole_folder
from . import answers
from .entries import Collection, StoreEntry
from .server import FILES, file
from .tiles import TilePyramid

SUFFIX = ".jpg"
INDEX, STATE, PUBLISHED_ID = "index.html", "state.json", "published"
FIRST_SCRIPT = "<script src="  # of the page: what it shows stands before them
# Of a store's own page; the rest tells of machines.
PUBLISHED = (
    *("key", "name", "state", "width", "height", "frames", "fps", "prompt", "negative_prompt"),
    *("model", "seed", "dtype", "blocks", "num_blocks", "edition", "revision", "top", "tile"),
)


def write(collection: Collection, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a folder to publish; returns its path.

    Raises `StoreError` where no store is finished, or one that is named or finished is damaged,
    and `ExportError` where the folder cannot be written; it is there whole, or not at all.
    """
    path = Path(os.path.realpath(out))
    stores = {key: entry for key, entry in collection.stores.items() if _is_finished(entry)}
    if not stores:
        one = next(iter(collection.stores.values()), None)
        if collection.is_store and one is not None and one.fault:
            raise StoreError(one.fault)
        raise StoreError(f"{collection.root} holds no finished picture; draw one first")
    for entry in stores.values():
        if isinstance(entry.place, Path) and entry.place in (path, *path.parents):
            raise ExportError(f"{out} lies in a store itself; use another name")
    with whole_folder(path, overwrite=overwrite, is_ours=_is_ours, error=ExportError) as part:
        for asked, (own, _) in FILES.items():
            if asked:
                (part / asked).write_bytes(file(own))
        listed = [_store(part, key, entry) for key, entry in stores.items()]
        about = {
            "made_by": "frieze view",
            "name": collection.name,
            "is_store": collection.is_store,
            "is_live": False,
            "stores": listed,
            "batches": [],
        }
        (part / STATE).write_text(json.dumps(about, indent=1), encoding="ascii")
        (part / INDEX).write_bytes(_page(about))
    return path


def _page(about: Mapping[str, Any]) -> bytes:
    """The page with what it shows in it: opened as a file, a browser lets it read no other."""
    # No text may end the element that it stands in.
    text = json.dumps(about).replace("<", "\\u003c")
    data = f'<script type="application/json" id="{PUBLISHED_ID}">{text}</script>\n{FIRST_SCRIPT}'
    return file(FILES[""][0]).replace(FIRST_SCRIPT.encode("ascii"), data.encode("ascii"), 1)


def _is_finished(entry: StoreEntry) -> bool:
    entry.look()
    return entry.status is not None and entry.status.state == "done"


def _store(part: Path, key: str, entry: StoreEntry) -> Mapping[str, Any]:
    """Write one store's files; returns what the list says of it."""
    assert entry.pyramid is not None
    folder = part / "stores" / key
    folder.mkdir(parents=True)
    found = answers.in_full(key, entry, None)
    about = {name: found[name] for name in PUBLISHED} | {"suffix": SUFFIX, "is_saved": False}
    (folder / "about.json").write_text(json.dumps(about, indent=1), encoding="ascii")
    pyramid = entry.pyramid
    encoder = TileEncoder("jpg", icc=pyramid.icc)
    for frame in range(about["frames"] or 1):
        (folder / f"{frame}.dzi").write_bytes(descriptor(pyramid.store.layout, encoder.format))
        for level, column, row in numbers(pyramid):
            tile = pyramid.tile(level, column, row, frame)
            if tile.fault:
                raise StoreError(f"{tile.fault}; frieze verify {entry.place} says what else is")
            place = folder / f"{frame}_files" / str(level)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{column}_{row}{SUFFIX}").write_bytes(encoder.encode(tile.pixels_HWC))
    return about


def numbers(pyramid: TilePyramid) -> Iterator[tuple[int, int, int]]:
    """(level, column, row) of all tiles of a frame."""
    for level in range(pyramid.top + 1):
        rows, columns = pyramid.counts(level)
        for row, column in product(range(rows), range(columns)):
            yield level, column, row


def _is_ours(path: Path) -> bool:
    """Whether a folder is an earlier export, and holds nothing else."""
    names = {entry.name for entry in path.iterdir()}
    try:
        about = json.loads((path / STATE).read_bytes())
    except (OSError, ValueError):
        return False
    known = {INDEX, STATE, "stores", *FILES}
    return isinstance(about, dict) and about.get("made_by") == "frieze view" and names <= known
