"""OpenEXR in little memory: linear light, half or float, chunks of scanlines.

What a model draws is for a display: made linear by the curve of its colours (sRGB's, Display P3's
or Adobe RGB's) it is 1 at most, no light of a scene, and the file says so. Colours are multiplied
by alpha where there is some.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..codecs import exr_chunks, picture_rows
from ..codecs.exr_attributes import ExrOptions, attributes, check_library, light_colors
from ..errors import ExportError
from ..files.atomic import whole_file
from ..files.location import Location, S3Path
from ..store.follower import Follow
from ..store.layout import StoreLayout
from ..store.provenance import check_picture, color_of, dpi_of, source

suffixes = (".exr",)
color_spaces = ("RGB",)

Options = ExrOptions
DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)
    check_library(out)


def export(
    store_path: str | os.PathLike[str] | S3Path,
    out_path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    follow: Follow = False,
    dpi: float | None = None,
    color: str | None = None,
    intent: str | None = None,
    options: Options = DEFAULTS,
) -> Path:
    """Write a store as one OpenEXR file; returns the file's path.

    `color` and `intent` say in which colours, as `color_of` takes them. With `follow` the store
    may still be drawn. Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    check(out, store.layout)
    size = (store.layout.height, store.layout.width)
    colors = light_colors(out, color_of(store, out, color, intent))
    told = attributes(store, dpi_of(store, dpi), colors)
    strips = (
        (top, picture_rows.linear(rows_HWC, colors).astype(options.dtype))
        for top, rows_HWC in picture_rows.strips(
            store, exr_chunks.strip_rows(options.compression), follow
        )
    )
    with whole_file(out, overwrite=overwrite, error=ExportError) as part, part.open("wb") as file:
        exr_chunks.write(file, strips, size, options.compression, told)
    return out
