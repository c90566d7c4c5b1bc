"""JPEG in little memory: strips of rows, each encoded by itself, joined where a scan restarts.

8 bits, colours at full resolution by default; up to 65500 pixels a side. EXIF and XMP that a
picture carried are left out where they are longer than JPEG's 64 KiB.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..codecs import jpeg_scan, picture_rows
from ..codecs.exif import exif
from ..errors import ExportError
from ..files.atomic import whole_file
from ..files.location import Location, S3Path
from ..store.follower import Follow
from ..store.layout import StoreLayout
from ..store.provenance import carried_by, color_of, dpi_of, source, xmp

suffixes = (".jpg", ".jpeg")
color_spaces = ("RGB",)


class Options(BaseModel):
    """Of JPEG."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

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
    """Write a store as one JPEG; returns the file's path.

    `color` and `intent` say in which colours, as `color_of` takes them. With `follow` the store
    may still be drawn. Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    check(out, store.layout, options)
    dots, carried = dpi_of(store, dpi), carried_by(store)
    colors = color_of(store, out, color, intent)
    packet, most = xmp(carried.xmp, store.provenance).encode(), jpeg_scan.MOST_XMP
    kind = {"starts_from": store.provenance.get("starts_from")}  # what there is always room for
    settings = jpeg_scan.JpegSettings(
        quality=options.quality,
        subsampling=options.subsampling,
        dpi=dots,
        exif=exif(store, dots, carried, jpeg_scan.MOST_EXIF),
        xmp=packet if len(packet) <= most else xmp(about=kind).encode(),
        icc=colors.icc,
    )
    # The store's own colours, which lie on white.
    in_order = store.in_order(jpeg_scan.STRIP_ROWS, wait=follow)
    strips = (picture_rows.of_bits(rows_HWC, 8) for _, rows_HWC in colors.strips(in_order))
    with whole_file(out, overwrite=overwrite, error=ExportError) as part, part.open("wb") as file:
        jpeg_scan.write(file, strips, store.layout.height, settings)
    return out
