"""One JPEG written from the top down: scans of its strips, joined where they restart.

At a restart marker a scan begins anew (ITU-T T.81, section E.1.3), so that strips which are
encoded by themselves, with one restart for each row of blocks and the same tables, follow each
other as if they had been encoded at once. Markers count modulo 8: every strip but the last has a
multiple of 8 rows of blocks.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image

# libjpeg's; the format itself has 65535, and hardly a reader that takes them.
LONGEST_SIDE = 65500
STRIP_ROWS = 128  # 8 rows of blocks of 16, or 16 of 8
MOST_EXIF, MOST_XMP = 65533 - 6, 65533 - 29  # bytes of a segment, without what names it
MOST_DENSITY = 2**16 - 1
START_OF_SCAN, END = b"\xff\xda", b"\xff\xd9"
LAST_RESTART = b"\xff\xd7"
FRAME_HEADERS = (0xC0, 0xC1)  # baseline, extended sequential

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


@dataclass(frozen=True)
class JpegSettings:
    """Quality from 1 to 100, resolution of colours, and what stands before the pixels."""

    quality: int
    subsampling: Subsampling
    dpi: float
    exif: bytes
    xmp: bytes
    icc: bytes


def write(
    file: BinaryIO, strips: Iterator[np.ndarray], height: int, settings: JpegSettings
) -> None:
    """Write a JPEG of `height` rows, whose strips are uint8 [rows, W, 3], `STRIP_ROWS` each."""
    for index, rows_HWC in enumerate(strips):
        head, scan = _encoded(rows_HWC, settings, is_first=not index)
        file.write(_of_height(head, height) + scan if not index else LAST_RESTART + scan)
    file.write(END)


def _encoded(
    rows_HWC: np.ndarray, settings: JpegSettings, *, is_first: bool
) -> tuple[bytes, bytes]:
    """Everything before the entropy-coded data, and these."""
    told: dict[str, Any] = {}
    if is_first:
        dots = min(round(settings.dpi), MOST_DENSITY)  # whole, of JFIF; EXIF has the fraction
        told = {"exif": b"Exif\0\0" + settings.exif, "xmp": settings.xmp}
        told |= {"icc_profile": settings.icc, "dpi": (dots, dots)}
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rows_HWC)).save(
        file,
        "JPEG",
        quality=settings.quality,
        subsampling=settings.subsampling,
        restart_marker_rows=1,
        optimize=False,  # tables of its own
        **told,
    )
    data = file.getvalue()
    start = _segments(data)[START_OF_SCAN[1]]
    (length,) = struct.unpack(">H", data[start + 2 : start + 4])
    cut = start + 2 + length
    return data[:cut], data[cut : -len(END)]


def _of_height(head: bytes, height: int) -> bytes:
    """The header of so many rows."""
    segments = _segments(head)
    (place,) = (segments[marker] for marker in FRAME_HEADERS if marker in segments)
    rows = place + 5  # after marker, length and precision
    return head[:rows] + struct.pack(">H", height) + head[rows + 2 :]


def _segments(data: bytes) -> dict[int, int]:
    """Where each kind of marker last stands, up to the scan."""
    found, place = {}, 2
    while True:
        marker = data[place + 1]
        found[marker] = place
        if marker == START_OF_SCAN[1]:
            return found
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        place += 2 + length
