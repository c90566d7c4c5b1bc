"""PNG of any size in little memory: filtered, deflated and written a few rows at a time.

The container is small (PNG specification, third edition): a signature, then chunks of length,
name, data and CRC.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..codecs import png_rows
from ..color.conversion import Conversion
from ..errors import ExportError
from ..files.atomic import whole_file
from ..files.location import Location, S3Path
from ..inputs.transparency import with_alpha
from ..store.follower import Follow
from ..store.layout import StoreLayout
from ..store.provenance import (
    alpha_of,
    as_json,
    carried_by,
    check_picture,
    color_of,
    dpi_of,
    parameters,
    software,
    source,
    xmp,
)
from ..store.store import Store

suffixes = (".png",)
color_spaces = ("RGB",)

STRIP_ROWS = 512
LONGEST_SIDE = 2**31 - 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
METRES_PER_INCH = 0.0254
RGB, RGBA = 2, 6  # types of colour


class Options(BaseModel):
    """Of PNG."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    level: int = Field(default=6, ge=1, le=9, description="deflate's: 1 fast, 9 small")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="compressing threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: a picture, not too large."""
    check_picture(out, layout)
    if max(layout.height, layout.width) > LONGEST_SIDE:
        raise ExportError(f"{out}: PNG ends at {LONGEST_SIDE} pixels a side; use TIFF")


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
    """Write a store as one PNG, 8 or 16 bits per channel; returns the file's path.

    `color` and `intent` say in which colours, as `color_of` takes them. With `follow` the store
    may still be drawn. Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    check(out, store.layout)
    colors = color_of(store, out, color, intent)
    head = _head(store, dpi_of(store, dpi), colors)
    with whole_file(out, overwrite=overwrite, error=ExportError) as part, part.open("wb") as file:
        file.write(head)
        layout = store.layout
        in_order = store.in_order(STRIP_ROWS, wait=follow)
        straight = with_alpha(in_order, alpha_of(store), (layout.height, layout.width))
        strips = (rows_HWC for _, rows_HWC in colors.strips(straight, options.workers))
        pieces, workers = png_rows.filtered(strips), options.workers or os.cpu_count() or 1
        for data in png_rows.deflated(pieces, options.level, workers):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))
    return out


def _head(store: Store, dpi: float, colors: Conversion) -> bytes:
    """Everything before the pixels: size, resolution and what drew the picture."""
    layout = store.layout
    bits, carried = 8 * np.dtype(layout.dtype).itemsize, carried_by(store)
    kind = RGB if alpha_of(store) is None else RGBA
    icc = b"ICC profile\0\0" + zlib.compress(colors.icc)
    per_metre = round(dpi / METRES_PER_INCH)
    return b"".join(
        (
            SIGNATURE,
            _chunk(
                b"IHDR",
                struct.pack(">IIBBBBB", layout.width, layout.height, bits, kind, 0, 0, 0),
            ),
            _chunk(b"iCCP", icc),
            _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
            _text("Software", software()),
            _text("parameters", parameters(store)),
            _international("frieze", as_json(store.provenance)),
            _international("XML:com.adobe.xmp", xmp(carried.xmp, store.provenance)),
            *([] if carried.exif is None else [_chunk(b"eXIf", carried.exif)]),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _text(keyword: str, text: str) -> bytes:
    """Latin-1 where that is enough, for readers that know nothing else."""
    try:
        return _chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _international(keyword, text)


def _international(keyword: str, text: str) -> bytes:
    return _chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8"))
