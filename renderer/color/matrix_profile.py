"""ICC profiles of three primaries, a white and a tone curve, the same bytes each time.

ICC.1:2022 (version 4.4): sections 7.2 (header), 8.4.3 (what a display's profile must hold) and 10
(types of tags). Libraries write the time into theirs, and a picture would differ with it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

D50 = (0.9642, 1.0, 0.8249)  # section 7.2.16
# Bradford's cones (ICC.1:2022, annex E.3).
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
HEADER_BYTES, ENTRY_BYTES = 128, 12
VERSION = 0x04400000
PUBLISHED = (2026, 1, 1, 0, 0, 0)
COPYRIGHT = "No rights are reserved in this profile"
POWER, POWER_AND_LINE = 0, 3  # parametric curves, section 10.18
PARAMETRIC_BYTES = {1: POWER, 5: POWER_AND_LINE}


@dataclass(frozen=True)
class MatrixProfile:
    """What is published of a colour space: chromaticities (x, y), and its parametric curve.

    `curve` is an exponent g, or g, a, b, c, d of (a x + b)^g from x = d on, and c x below.
    """

    name: str
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]
    curve: tuple[float, ...]

    def adaptation(self) -> np.ndarray:
        """From its white to D50, [3, 3] on XYZ, by Bradford."""
        gains = (BRADFORD @ np.array(D50)) / (BRADFORD @ _xyz(self.white))
        return np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD

    def colorants(self) -> np.ndarray:
        """XYZ of red, green and blue under D50, as columns [3, 3]; together they are white."""
        primaries = np.stack([_xyz(xy) for xy in (self.red, self.green, self.blue)], axis=1)
        amounts = np.linalg.solve(primaries, _xyz(self.white))
        return self.adaptation() @ (primaries * amounts)

    def icc(self) -> bytes:
        """The profile, with its own digest in it."""
        colorants = _fixed(self.colorants())
        # Whole numbers that add up: equal amounts are neutral to the last bit.
        colorants[:, 1] += _fixed(np.array(D50)) - colorants.sum(axis=1)
        curve = _parametric(self.curve)
        tags = [
            (b"desc", _text(self.name)),
            (b"cprt", _text(COPYRIGHT)),
            (b"wtpt", _numbers(b"XYZ ", _fixed(np.array(D50)))),
            (b"chad", _numbers(b"sf32", _fixed(self.adaptation()))),
            *((name, _numbers(b"XYZ ", colorants[:, i])) for i, name in enumerate(_XYZ)),
            *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
        ]
        return _assembled(tags)


_XYZ = (b"rXYZ", b"gXYZ", b"bXYZ")


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(values: np.ndarray) -> np.ndarray:
    """s15Fixed16Number (section 4.6)."""
    return np.rint(values * 2**16).astype(np.int64)


def _numbers(kind: bytes, fixed: np.ndarray) -> bytes:
    return struct.pack(f">4sI{fixed.size}i", kind, 0, *(int(each) for each in fixed.flat))


def _parametric(curve: Sequence[float]) -> bytes:
    return struct.pack(">4sIHH", b"para", 0, PARAMETRIC_BYTES[len(curve)], 0) + struct.pack(
        f">{len(curve)}i", *(int(each) for each in _fixed(np.array(curve)))
    )


def _text(text: str) -> bytes:
    """multiLocalizedUnicode of one language (section 10.15)."""
    words = text.encode("utf-16-be")
    return struct.pack(">4sIII4sII", b"mluc", 0, 1, 12, b"enUS", len(words), 28) + words


def _assembled(tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Header, table and data; what is the same is there once, and begins at a multiple of four."""
    start = HEADER_BYTES + 4 + ENTRY_BYTES * len(tags)
    places: dict[bytes, int] = {}
    data = b""
    for _, value in tags:
        if value not in places:
            places[value] = start + len(data)
            data += value + b"\0" * (-len(value) % 4)
    table = b"".join(struct.pack(">4sII", name, places[v], len(v)) for name, v in tags)
    body = struct.pack(">I", len(tags)) + table + data
    plain = _header(HEADER_BYTES + len(body), b"") + body
    return _header(len(plain), hashlib.md5(plain, usedforsecurity=False).digest()) + body


def _header(size: int, identifier: bytes) -> bytes:
    """Section 7.2; the digest is of a header without it (7.2.18)."""
    first = struct.pack(">I4xI4s4s4s6H", size, VERSION, b"mntr", b"RGB ", b"XYZ ", *PUBLISHED)
    illuminant = struct.pack(">3i", *(int(each) for each in _fixed(np.array(D50))))
    return (first + b"acsp" + bytes(28) + illuminant + bytes(4) + identifier).ljust(
        HEADER_BYTES, b"\0"
    )
