"""One OpenEXR file written from the top down: chunks of scanlines, each encoded by the library.

The library's Python door writes whole files only. A file of a strip, whose data window says where
that lies, has the same chunks as the picture's own; joined behind a header and a table of offsets
they are the picture (OpenEXR File Layout, "Scan-line blocks").
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Literal

import numpy as np

INSTALL = "pip install 'frieze[exr]'"
Compression = Literal["piz", "zip", "zips", "rle", "dwaa", "dwab"]
CHUNK_ROWS: dict[Compression, int] = {
    "piz": 32,
    "zip": 16,
    "zips": 1,
    "rle": 1,
    "dwaa": 32,
    "dwab": 256,
}
LEAST_ROWS = 128
CHANNELS = {3: "RGB", 4: "RGBA"}


def write(
    file: BinaryIO,
    strips: Iterator[tuple[int, np.ndarray]],
    size: tuple[int, int],
    compression: Compression,
    attributes: Mapping[str, Any],
) -> None:
    """Write a picture of so many rows and columns into an empty file.

    Strips are (first row, float16 or float32 [rows, W, 3 or 4]), `strip_rows` each, the last one
    fewer. `attributes` are texts, numbers, fractions and tuples.
    """
    per_chunk = CHUNK_ROWS[compression]
    offsets: list[int] = []
    num_chunks = -(-size[0] // per_chunk)
    table = 0
    for top, rows_HWC in strips:
        data = _encoded(rows_HWC, top, size, compression, attributes)
        end = _header_end(data)
        chunks = -(-len(rows_HWC) // per_chunk)
        if not table:
            file.write(_whole_header(data[:end], size))
            table = file.tell()
            file.write(bytes(8 * num_chunks))
        own = struct.unpack(f"<{chunks}Q", data[end : end + 8 * chunks])
        body = end + 8 * chunks
        offsets += [file.tell() + offset - body for offset in own]
        file.write(memoryview(data)[body:])
    file.seek(table)
    file.write(struct.pack(f"<{num_chunks}Q", *offsets))


def strip_rows(compression: Compression) -> int:
    """How many rows are encoded at once: whole chunks, some of them."""
    return max(LEAST_ROWS, CHUNK_ROWS[compression])


def cut(pixels_HWC: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, so many rows, the last strip fewer) of a whole picture."""
    for top in range(0, len(pixels_HWC), rows):
        yield top, pixels_HWC[top : top + rows]


def _encoded(
    rows_HWC: np.ndarray,
    top: int,
    size: tuple[int, int],
    compression: Compression,
    attributes: Mapping[str, Any],
) -> bytes:
    """A whole file of a strip, which says where it lies in the picture."""
    import OpenEXR

    height, width = size
    header = {
        **attributes,
        "compression": getattr(OpenEXR, f"{compression.upper()}_COMPRESSION"),
        "type": OpenEXR.scanlineimage,
        "dataWindow": _window(top, len(rows_HWC), width),
        "displayWindow": _window(0, height, width),
    }
    file = io.BytesIO()
    pixels = np.ascontiguousarray(rows_HWC)
    OpenEXR.File(header, {CHANNELS[pixels.shape[2]]: pixels}).write(file)
    return file.getvalue()


def _window(top: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, top], np.int32), np.array([width - 1, top + height - 1], np.int32)


def _whole_header(header: bytes, size: tuple[int, int]) -> bytes:
    """A strip's header as the picture's."""
    place, length = _attributes(header)["dataWindow"]
    window = struct.pack("<4i", 0, 0, size[1] - 1, size[0] - 1)
    return header[:place] + window + header[place + length :]


def _attributes(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the value of each attribute lies, and how long it is."""
    found, place = {}, 8
    while data[place]:
        name_end = data.index(b"\0", place)
        kind_end = data.index(b"\0", name_end + 1)
        (length,) = struct.unpack("<i", data[kind_end + 1 : kind_end + 5])
        found[data[place:name_end].decode()] = (kind_end + 5, length)
        place = kind_end + 5 + length
    return found


def _header_end(data: bytes) -> int:
    place, length = list(_attributes(data).values())[-1]
    return place + length + 1
