"""WebP of the whole picture at once: 8 bits, colours at half resolution unless lossless.

Up to 16383 pixels a side, and as much memory as its encoder takes for all pixels together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, StrictBool

from ..codecs import picture_rows
from ..codecs.exif import exif
from ..codecs.output import ExportOptions, Output
from ..errors import ExportError
from ..files.location import Location
from ..inputs.host_memory import memory_bytes
from ..spec.units import GIB
from ..store.layout import StoreLayout
from ..store.provenance import xmp

suffixes = (".webp",)
color_spaces = ("RGB",)

LONGEST_SIDE = 16383
STRIP_ROWS = 512
# Of a pixel, measured at 4096 x 4096 with libwebp 1.6: 9.4, and 33 to 36 without loss, as which
# alpha is written always.
BYTES, LOSSLESS_BYTES = 12, 40
METHOD, LOSSLESS_EFFORT = 4, 20  # more takes minutes for a few hundredths of the size


class Options(ExportOptions):
    """Of WebP."""

    quality: int = Field(default=90, ge=1, le=100, description="libwebp's: 75 for the web")
    lossless: StrictBool = Field(default=False, description="keep every pixel; slow")


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout, options: Options = DEFAULTS) -> None:
    """Raise `ExportError` unless such a store can be written there, in this host's memory."""
    picture_rows.check_sides(out, layout, LONGEST_SIDE, "WebP")
    each = LOSSLESS_BYTES if options.lossless or picture_rows.has_alpha(layout) else BYTES
    needed, there = each * layout.height * layout.width, memory_bytes()
    if needed > there:
        raise ExportError(
            f"{out}: WebP is encoded whole, which takes {needed / GIB:.1f} GiB, and this host has "
            f"{there / GIB:.1f} GiB; use .avif, .jpg or .png"
        )


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as one WebP; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, layout, carried = output.store, output.layout, output.carried
    check(output.path, layout, options)
    icc = output.colors.icc
    with output.file() as part:
        mode = "RGBA" if picture_rows.has_alpha(layout) else "RGB"
        image = Image.new(mode, (layout.width, layout.height))
        for top, rows_HWC in output.strips(STRIP_ROWS):
            image.paste(
                Image.fromarray(np.ascontiguousarray(picture_rows.of_bits(rows_HWC, 8))), (0, top)
            )
        image.save(
            part,
            "WEBP",
            quality=LOSSLESS_EFFORT if options.lossless else options.quality,
            lossless=options.lossless,
            method=METHOD,
            exact=True,  # colours below no alpha too
            exif=exif(store, output.dpi, carried),
            xmp=xmp(carried.xmp, store.provenance).encode(),
            icc_profile=icc,
        )
    return output.path
