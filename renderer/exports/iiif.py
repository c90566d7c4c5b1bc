"""IIIF Image API 3.0, level 0: a folder of tiles that any web server serves to IIIF viewers.

`NAME.iiif` holds info.json, a folder for each region, and frieze.json, which says what drew it.
Tiles are of the store's own pyramid, 512 pixels, JPEG: level 0 asks for it. A picture with alpha
lies on white. `full/max` is at most 1024 pixels wide and high, which info.json says
(iiif.io/api/image/3.0, sections 4 and 5; names of files as its section 4.7 makes them canonical).
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from pydantic import Field

from ..codecs import picture_rows
from ..codecs.output import ExportOptions, Output
from ..codecs.tile_encoder import QUALITY, TileEncoder
from ..codecs.tile_pyramid import TILE, Tile, TileLevel, level_rows, tile_levels, write_tiles
from ..errors import ExportError, shown
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import check_picture
from ..store.store import Store

suffixes = (".iiif",)
color_spaces = ("RGB",)
last, others = "info.json", re.compile(r"full|\d+,\d+,\d+,\d+|frieze\.json")

CONTEXT = "http://iiif.io/api/image/3/context.json"
SERVER = "http://localhost:8000"  # where `python -m http.server` serves the folder around it
MOST = 1024  # pixels of full/max


class Options(ExportOptions):
    """Of IIIF."""

    uri: str | None = Field(
        default=None,
        description="address at which the folder will be served; default: that of `python -m "
        "http.server` beside it",
    )
    quality: int = Field(default=QUALITY, ge=1, le=100, description="JPEG's, of 100")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="encoding threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as a folder of IIIF tiles; returns its path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    out, layout, colors = output.path, output.layout, output.colors
    check(out, layout)
    uri = _address(options.uri if options.uri is not None else f"{SERVER}/{quote(out.name)}")
    encoder = TileEncoder("jpg", options.quality, colors.icc)
    with output.folder(last, is_ours) as part:
        (part / "frieze.json").write_text(json.dumps(output.about, indent=1))

        def place(tile: Tile) -> Path:
            return part / path_of(layout, tile)

        write_tiles(output, tile_levels(layout, TILE), place, encoder, options.workers)
        whole = part / "full" / "max" / "0" / "default.jpg"
        if not whole.exists():  # else one tile is the whole picture
            whole.parent.mkdir(parents=True)
            whole.write_bytes(encoder.encode(colors.rows(_within(output.store, MOST))))
        (part / last).write_text(json.dumps(info(layout, uri), indent=1))
    return out


def info(layout: StoreLayout, uri: str) -> dict[str, Any]:
    """What info.json says: the picture's size, its tiles, and sizes that the whole comes in."""
    levels = tile_levels(layout, TILE)
    small = [level for level in levels[1:] if max(level.height, level.width) <= TILE]
    limit = {"maxWidth": MOST, "maxHeight": MOST}
    return {
        "@context": CONTEXT,
        "id": uri,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "width": layout.width,
        "height": layout.height,
        **(limit if max(layout.width, layout.height) > MOST else {}),
        "sizes": [{"width": level.width, "height": level.height} for level in reversed(small)],
        "tiles": [
            {"width": TILE, "height": TILE, "scaleFactors": [2**level.index for level in levels]}
        ],
    }


def path_of(layout: StoreLayout, tile: Tile) -> str:
    """A tile's place, {region}/{size}/0/default.jpg, from the folder on."""
    scale = 2**tile.level.index
    left, top = tile.left * scale, tile.top * scale
    width = min(tile.width * scale, layout.width - left)
    height = min(tile.height * scale, layout.height - top)
    is_all = (width, height) == (layout.width, layout.height)
    region = "full" if is_all else f"{left},{top},{width},{height}"
    size = "max" if is_all and scale == 1 else f"{tile.width},{tile.height}"
    return f"{region}/{size}/0/default.jpg"


def _within(store: Store, side: int) -> np.ndarray:
    """The whole picture [H, W, 3] in 8 bits, its longer side so many pixels, or all that it has."""
    from PIL import Image

    layout = store.layout
    levels = [level for level in tile_levels(layout) if _longest(level) >= side]
    level = levels[-1] if levels else TileLevel(0, layout.height, layout.width)
    image = Image.fromarray(
        picture_rows.of_bits(level_rows(store, level.index, 0, level.height), 8)
    )
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _longest(level: TileLevel) -> int:
    return max(level.height, level.width)


def _address(uri: str) -> str:
    """An address without the slash at its end; raises `ExportError` unless it is one."""
    try:
        found = urlsplit(uri)
    except ValueError:
        found = urlsplit("")
    is_plain = uri.isascii() and uri.isprintable() and " " not in uri
    if found.scheme not in ("http", "https") or not found.netloc or found.query or not is_plain:
        raise ExportError(
            f"uri {shown(uri)} is no address of a folder; https://example.org/poster.iiif is one"
        )
    return uri.rstrip("/")


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export and holds nothing else."""
    is_told = about is not None and CONTEXT.encode() in about and "frieze.json" in names
    return is_told and all(map(others.fullmatch, names - {last}))
