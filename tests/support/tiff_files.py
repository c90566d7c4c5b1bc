"""TIFF files with any tags, told or left out, by the format's own words (TIFF 6.0, sec. 2).

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

SHORT, LONG = 3, 4
LONG_TAGS = (254, 256, 257, 273, 278, 279)
Value = int | Sequence[int] | None
Page = tuple[Mapping[int, Value], Sequence[bytes]]


def tiff(*pages: Page) -> bytes:
    """A little-endian TIFF of pages, each its tags and its strips; None leaves a tag out."""
    file, link = bytearray(b"II*\0\0\0\0\0"), 4
    for tags, strips in pages:
        places = []
        for strip in strips:
            places.append(len(file))
            file += strip + b"\0" * (len(strip) % 2)
        told = {273: places, 279: [len(strip) for strip in strips]} | dict(tags)
        entries = b"".join(
            _entry(file, code, [value] if isinstance(value, int) else list(value))
            for code, value in sorted(told.items())
            if value is not None
        )
        struct.pack_into("<I", file, link, len(file))
        link = len(file) + 2 + len(entries)
        file += struct.pack("<H", len(entries) // 12) + entries + b"\0" * 4
    return bytes(file)


def _entry(file: bytearray, code: int, values: Sequence[int]) -> bytes:
    """12 bytes of a tag; values that are longer than 4 are put into the file."""
    kind = LONG if code in LONG_TAGS else SHORT
    data = struct.pack(f"<{len(values)}{'I' if kind == LONG else 'H'}", *values)
    if len(data) > 4:
        place = struct.pack("<I", len(file))
        file += data + b"\0" * (len(data) % 2)
        data = place
    return struct.pack("<HHI", code, kind, len(values)) + data.ljust(4, b"\0")


def tags_of(height: int, width: int, bits: int, **more: Value) -> dict[int, Value]:
    """Tags of grey, BlackIsZero, in one strip, without PlanarConfiguration; `more` as t262=2."""
    base: dict[int, Value] = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1}
    return base | {278: height} | {int(name[1:]): value for name, value in more.items()}


def one(samples_HWC: np.ndarray, bits: int, **more: Value) -> bytes:
    """A TIFF of whole numbers [H, W] or [H, W, C] in so many bits each, uncompressed."""
    height, width, *channels = samples_HWC.shape
    count = channels[0] if channels else 1
    told = {"t277": count, "t258": [bits] * count, "t262": 2 if count > 2 else 1} | more
    return tiff((tags_of(height, width, bits, **told), [stored(samples_HWC, bits)]))


def stored(samples_HWC: np.ndarray, bits: int) -> bytes:
    """Whole numbers as a strip has them: little-endian where they are whole bytes, else packed."""
    if bits % 8:
        return packed(samples_HWC, bits)
    eight = samples_HWC.astype("<u8")[..., None].view(np.uint8)
    return np.ascontiguousarray(eight[..., : bits // 8]).tobytes()


def packed(samples_HWC: np.ndarray, bits: int) -> bytes:
    """Whole numbers in so many bits each, the most significant first; rows end on a byte."""
    rows = samples_HWC.reshape(len(samples_HWC), -1).astype(np.uint64)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    ones = (rows[..., None] >> shifts & np.uint64(1)).astype(np.uint8)
    return np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()
