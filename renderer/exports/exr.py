"""OpenEXR in little memory: linear light, half or float, chunks of scanlines.

What a model draws is for a display: made linear by the curve of its colours (sRGB's, Display P3's
or Adobe RGB's) it is 1 at most, no light of a scene, and the file says so. Colours are multiplied
by alpha where there is some.
"""

from __future__ import annotations

from pathlib import Path

from ..codecs import exr_chunks, picture_rows
from ..codecs.exr_attributes import ExrOptions, attributes, check_library, light_colors
from ..codecs.output import Output
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import check_picture

suffixes = (".exr",)
color_spaces = ("RGB",)

Options = ExrOptions
DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)
    check_library(out)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as one OpenEXR file; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    check(output.path, output.layout)
    size = (output.layout.height, output.layout.width)
    colors = light_colors(output.path, output.colors)
    told = attributes(output.store, output.dpi, colors)
    strips = (
        (top, picture_rows.linear(rows_HWC, colors).astype(options.dtype))
        for top, rows_HWC in output.straight(exr_chunks.strip_rows(options.compression))
    )
    with output.file() as part, part.open("wb") as file:
        exr_chunks.write(file, strips, size, options.compression, told)
    return output.path
