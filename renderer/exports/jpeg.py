"""JPEG in little memory: strips of rows, each encoded by itself, joined where a scan restarts.

8 bits, colours at full resolution by default; up to 65500 pixels a side. EXIF and XMP that a
picture carried are left out where they are longer than JPEG's 64 KiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..codecs import jpeg_scan, picture_rows
from ..codecs.exif import exif
from ..codecs.output import ExportOptions, Output
from ..errors import ExportError
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import xmp

suffixes = (".jpg", ".jpeg")
color_spaces = ("RGB",)


class Options(ExportOptions):
    """Of JPEG."""

    quality: int = Field(default=95, ge=1, le=100, description="libjpeg's: 75 for the web")
    subsampling: jpeg_scan.Subsampling = Field(
        default="4:4:4", description="how many samples of colour there are: all, a half, a quarter"
    )
    background: Literal["none", "white"] = Field(
        default="none", description="what a picture with alpha is put on; none refuses one"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout, options: Options = DEFAULTS) -> None:
    """Raise `ExportError` unless such a store can be written there: no alpha, not too large."""
    picture_rows.check_sides(out, layout, jpeg_scan.LONGEST_SIDE, "JPEG")
    if picture_rows.has_alpha(layout) and options.background == "none":
        raise ExportError(
            f"{out}: JPEG has no alpha, and the picture has some; use .png, .tif, .webp or .avif, "
            "or frieze export with --option background=white"
        )


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as one JPEG; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, carried = output.store, output.carried
    check(output.path, output.layout, options)
    packet, most = xmp(carried.xmp, store.provenance).encode(), jpeg_scan.MOST_XMP
    kind = {"starts_from": store.provenance.get("starts_from")}  # what there is always room for
    settings = jpeg_scan.JpegSettings(
        quality=options.quality,
        subsampling=options.subsampling,
        dpi=output.dpi,
        exif=exif(store, output.dpi, carried, jpeg_scan.MOST_EXIF),
        xmp=packet if len(packet) <= most else xmp(about=kind).encode(),
        icc=output.colors.icc,
    )
    in_order = output.flat_strips(jpeg_scan.STRIP_ROWS)
    strips = (picture_rows.of_bits(rows_HWC, 8) for _, rows_HWC in in_order)
    with output.file() as part, part.open("wb") as file:
        jpeg_scan.write(file, strips, output.layout.height, settings)
    return output.path
