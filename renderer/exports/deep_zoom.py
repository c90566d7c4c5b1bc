"""Deep Zoom, which OpenSeadragon shows from any web server: a folder of tiles and image.dzi.

`NAME.dzi` is a folder, so that it is there whole or not at all: it holds image.dzi, which viewers
are given, image_files/LEVEL/COLUMN_ROW.jpg and frieze.json, which says what drew it. Tiles are of
the store's own pyramid, 512 pixels, without overlap. A picture with alpha lies on white.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from pydantic import Field

from ..codecs.output import ExportOptions, Output
from ..codecs.tile_encoder import QUALITY, TileEncoder
from ..codecs.tile_pyramid import TILE, Tile, tile_levels, write_tiles
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import check_picture

suffixes = (".dzi",)
color_spaces = ("RGB",)
last, others = "image.dzi", re.compile(r"image_files|frieze\.json")

NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"


class Options(ExportOptions):
    """Of Deep Zoom."""

    format: Literal["jpg", "png"] = Field(default="jpg", description="the tiles' format")
    quality: int = Field(default=QUALITY, ge=1, le=100, description="JPEG's, of 100")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="encoding threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as a folder of Deep Zoom tiles; returns its path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    check(output.path, output.layout)
    encoder = TileEncoder(options.format, options.quality, output.colors.icc)
    levels = tile_levels(output.layout)
    with output.folder(last, is_ours) as part:
        (part / "frieze.json").write_text(json.dumps(output.about, indent=1))

        def place(tile: Tile) -> Path:
            number = len(levels) - 1 - tile.level.index
            return part / "image_files" / str(number) / f"{tile.column}_{tile.row}.{options.format}"

        write_tiles(output, levels, place, encoder, options.workers)
        (part / last).write_bytes(descriptor(output.layout, options.format))
    return output.path


def descriptor(layout: StoreLayout, format: str = "jpg") -> bytes:
    """The text of a .dzi file: size, tiles and their format."""
    image = ElementTree.Element(
        "Image", {"xmlns": NAMESPACE, "Format": format, "Overlap": "0", "TileSize": str(TILE)}
    )
    size = {"Width": str(layout.width), "Height": str(layout.height)}
    ElementTree.SubElement(image, "Size", size)
    text: bytes = ElementTree.tostring(image, encoding="utf-8", xml_declaration=True)
    return text


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export and holds nothing else."""
    is_told = about is not None and NAMESPACE.encode() in about and "frieze.json" in names
    return is_told and all(map(others.fullmatch, names - {last}))
