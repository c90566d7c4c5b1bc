"""PNG of any size in little memory: filtered, deflated and written a few rows at a time.

The container is small (PNG specification, third edition): a signature, then chunks of length,
name, data and CRC. Pieces of rows are deflated by several threads and joined at full flushes.
Shape suffixes: C channels, H rows, W columns, N bytes of one row.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

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
    dpi_of,
    parameters,
    software,
    source,
    xmp,
)
from ..store.store import Store

suffixes = (".png",)

STRIP_ROWS = 512
PIECE_ROWS = 64
LONGEST_SIDE = 2**31 - 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# RFC 1950: deflate with a 32 KiB window, no dictionary.
ZLIB_HEADER = b"\x78\x01"
METRES_PER_INCH = 0.0254
FILTER_SUB, FILTER_UP = 1, 2
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
    options: Options = DEFAULTS,
) -> Path:
    """Write a store as one PNG, 8 or 16 bits per channel; returns the file's path.

    With `follow` the store may still be drawn. Raises `ExportError` or `StoreError`, and leaves
    nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    check(out, store.layout)
    head = _head(store, dpi_of(store, dpi))
    with whole_file(out, overwrite=overwrite, error=ExportError) as part, part.open("wb") as file:
        file.write(head)
        layout = store.layout
        in_order = store.in_order(STRIP_ROWS, wait=follow)
        strips = (
            r for _, r in with_alpha(in_order, alpha_of(store), (layout.height, layout.width))
        )
        _write_data(file, _filtered(strips), options.level, options.workers or os.cpu_count() or 1)
        file.write(_chunk(b"IEND", b""))
    return out


def _head(store: Store, dpi: float) -> bytes:
    """Everything before the pixels: size, resolution and what drew the picture."""
    layout = store.layout
    bits, carried = 8 * np.dtype(layout.dtype).itemsize, carried_by(store)
    colours = RGB if alpha_of(store) is None else RGBA
    icc = b"" if carried.icc is None else b"ICC profile\0\0" + zlib.compress(carried.icc)
    per_metre = round(dpi / METRES_PER_INCH)
    return b"".join(
        (
            SIGNATURE,
            _chunk(
                b"IHDR",
                struct.pack(">IIBBBBB", layout.width, layout.height, bits, colours, 0, 0, 0),
            ),
            *([_chunk(b"iCCP", icc)] if icc else []),
            _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
            _text("Software", software()),
            _text("parameters", parameters(store)),
            _international("frieze", as_json(store.provenance)),
            _international("XML:com.adobe.xmp", xmp(carried.xmp)),
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


def _filtered(strips: Iterator[np.ndarray]) -> Iterator[bytes]:
    """Pieces of filtered rows; each row by whichever of Sub and Up leaves the smaller sum.

    The sum of absolute differences is the specification's own advice (section 12.7).
    """
    above_N: np.ndarray | None = None
    for rows_HWC in strips:
        big_endian = rows_HWC.astype(rows_HWC.dtype.newbyteorder(">"), copy=False)
        bytes_HN = np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(rows_HWC), -1)
        pixel = rows_HWC.shape[2] * rows_HWC.dtype.itemsize
        for top in range(0, len(bytes_HN), PIECE_ROWS):
            piece_HN = bytes_HN[top : top + PIECE_ROWS]
            yield _filter(piece_HN, above_N, pixel)
            above_N = piece_HN[-1].copy()


def _filter(rows_HN: np.ndarray, above_N: np.ndarray | None, pixel: int) -> bytes:
    first = np.zeros_like(rows_HN[0]) if above_N is None else above_N
    up_HN = rows_HN - np.vstack((first[None], rows_HN[:-1]))
    sub_HN = rows_HN.copy()
    sub_HN[:, pixel:] -= rows_HN[:, :-pixel]
    sums = [np.abs(x.view(np.int8).astype(np.int16)).sum(axis=1) for x in (sub_HN, up_HN)]
    is_up = (sums[1] < sums[0])[:, None]
    kinds = np.where(is_up, FILTER_UP, FILTER_SUB).astype(np.uint8)
    return np.hstack((kinds, np.where(is_up, up_HN, sub_HN))).tobytes()


def _write_data(file: BinaryIO, pieces: Iterator[bytes], level: int, workers: int) -> None:
    """IDAT chunks of one zlib stream, deflated by `workers` threads and written in order."""
    waiting: deque[Future[bytes]] = deque()
    checksum, data = zlib.adler32(b""), ZLIB_HEADER
    with ThreadPoolExecutor(workers) as pool:
        for piece, following in pairwise(_with_end(pieces)):
            assert piece is not None
            checksum = zlib.adler32(piece, checksum)
            waiting.append(pool.submit(_deflate, piece, level, following is None))
            if len(waiting) > workers:
                file.write(_chunk(b"IDAT", data + waiting.popleft().result()))
                data = b""
        while waiting:
            data += waiting.popleft().result()
    file.write(_chunk(b"IDAT", data + struct.pack(">I", checksum)))


def _with_end(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from pieces
    yield None


def _deflate(piece: bytes, level: int, is_last: bool) -> bytes:
    """A run of deflate blocks that ends on a byte, so that the next run can follow it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return packer.compress(piece) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH)
