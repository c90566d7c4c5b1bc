"""Rows of pixels filtered as PNG has it and deflated, a few at a time: in PNG, and in PDF.

Pieces of rows are deflated by several threads and joined at full flushes.
Shape suffixes: C channels, H rows, W columns, N bytes of one row.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np

PIECE_ROWS = 64
# RFC 1950: deflate with a 32 KiB window, no dictionary.
ZLIB_HEADER = b"\x78\x01"
FILTER_SUB, FILTER_UP = 1, 2


def filtered(strips: Iterator[np.ndarray]) -> Iterator[bytes]:
    """Pieces of filtered rows; each row by whichever of Sub and Up leaves the smaller sum.

    The sum of absolute differences is the specification's own advice (section 12.7).
    """
    above_N: np.ndarray | None = None
    for rows_HWC in strips:
        pixel = rows_HWC.shape[2] * rows_HWC.dtype.itemsize
        for top in range(0, len(rows_HWC), PIECE_ROWS):
            piece_HN = _bytes(rows_HWC[top : top + PIECE_ROWS])
            yield _filter(piece_HN, above_N, pixel)
            above_N = piece_HN[-1].copy()


def _bytes(rows_HWC: np.ndarray) -> np.ndarray:
    """Rows as bytes [H, N], the larger one of two first."""
    big_endian = rows_HWC.astype(rows_HWC.dtype.newbyteorder(">"), copy=False)
    return np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(rows_HWC), -1)


def _filter(rows_HN: np.ndarray, above_N: np.ndarray | None, pixel: int) -> bytes:
    first = np.zeros_like(rows_HN[0]) if above_N is None else above_N
    up_HN = rows_HN - np.vstack((first[None], rows_HN[:-1]))
    sub_HN = rows_HN.copy()
    sub_HN[:, pixel:] -= rows_HN[:, :-pixel]
    sums = [np.abs(x.view(np.int8).astype(np.int16)).sum(axis=1) for x in (sub_HN, up_HN)]
    is_up = (sums[1] < sums[0])[:, None]
    kinds = np.where(is_up, FILTER_UP, FILTER_SUB).astype(np.uint8)
    return np.hstack((kinds, np.where(is_up, up_HN, sub_HN))).tobytes()


def deflated(pieces: Iterator[bytes], level: int, workers: int) -> Iterator[bytes]:
    """One zlib stream in parts, of pieces that `workers` threads deflate; `level` is 1 to 9."""
    waiting: deque[Future[bytes]] = deque()
    checksum, data = zlib.adler32(b""), ZLIB_HEADER
    with ThreadPoolExecutor(workers) as pool:
        for piece, following in pairwise(_with_end(pieces)):
            assert piece is not None
            checksum = zlib.adler32(piece, checksum)
            waiting.append(pool.submit(_deflate, piece, level, following is None))
            if len(waiting) > workers:
                yield data + waiting.popleft().result()
                data = b""
        while waiting:
            data += waiting.popleft().result()
    yield data + struct.pack(">I", checksum)


def _with_end(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from pieces
    yield None


def _deflate(piece: bytes, level: int, is_last: bool) -> bytes:
    """A run of deflate blocks that ends on a byte, so that the next run can follow it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return packer.compress(piece) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH)
