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
from pydantic import Field

from ..codecs import png_rows
from ..codecs.output import ExportOptions, Output
from ..errors import ExportError
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import as_json, check_picture, parameters, software, xmp

suffixes = (".png",)
color_spaces = ("RGB",)

STRIP_ROWS = 512
LONGEST_SIDE = 2**31 - 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
METRES_PER_INCH = 0.0254
RGB, RGBA = 2, 6  # types of colour


class Options(ExportOptions):
    """Of PNG."""

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


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as one PNG, 8 or 16 bits per channel; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    check(output.path, output.layout)
    head = _head(output)
    with output.file() as part, part.open("wb") as file:
        file.write(head)
        strips = (rows_HWC for _, rows_HWC in output.strips(STRIP_ROWS, options.workers))
        pieces, workers = png_rows.filtered(strips), options.workers or os.cpu_count() or 1
        for data in png_rows.deflated(pieces, options.level, workers):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))
    return output.path


def _head(output: Output) -> bytes:
    """Everything before the pixels: size, resolution and what drew the picture."""
    store, layout, carried = output.store, output.layout, output.carried
    bits = 8 * np.dtype(layout.dtype).itemsize
    kind = RGBA if output.has_alpha else RGB
    icc = b"ICC profile\0\0" + zlib.compress(output.colors.icc)
    per_metre = round(output.dpi / METRES_PER_INCH)
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
