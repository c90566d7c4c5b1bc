"""Colours by published formulas, in float64, for tests to compare with: no library of colour.

IEC 61966-2-1 (sRGB), CIE 15 (Lab), Bradford's adaptation; a printing press that is a formula, and
its ICC profile (ICC.1:2001-04, lut16Type), as print shops hand them out.
Shape suffixes: C channels, H rows, W columns, N patches.
"""

from __future__ import annotations

import struct

import numpy as np

D65, D50 = np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290]), np.array([0.9642, 1.0, 0.8249])
CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
PRIMARIES = {
    "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "display-p3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    "adobe-rgb": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
}
# A chart of 24 patches as 8-bit sRGB, near those that photographers use, and corners of the cube.
PATCHES = np.array(
    [
        *((115, 82, 68), (194, 150, 130), (98, 122, 157), (87, 108, 67), (133, 128, 177)),
        *((103, 189, 170), (214, 126, 44), (80, 91, 166), (193, 90, 99), (94, 60, 108)),
        *((157, 188, 64), (224, 163, 46), (56, 61, 150), (70, 148, 73), (175, 54, 60)),
        *((231, 199, 31), (187, 86, 149), (8, 133, 161), (243, 243, 242), (200, 200, 200)),
        *((160, 160, 160), (122, 122, 121), (85, 85, 85), (52, 52, 52)),
        *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)),
    ],
    np.uint8,
)


def matrix(name: str) -> np.ndarray:
    """Linear RGB of a space to XYZ under D50."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[name]]).T
    adapted = np.linalg.inv(CONES) @ np.diag((CONES @ D50) / (CONES @ D65)) @ CONES
    found: np.ndarray = adapted @ (columns * np.linalg.solve(columns, D65))
    return found


def linear(name: str, encoded: np.ndarray) -> np.ndarray:
    """What numbers in [0, 1] of a space are of its light."""
    if name == "adobe-rgb":
        return np.asarray(encoded ** (563 / 256))
    curved = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curved)


def xyz(name: str, encoded: np.ndarray) -> np.ndarray:
    """XYZ under D50 of numbers in [0, 1], [..., 3]."""
    return np.asarray(linear(name, np.asarray(encoded, np.float64)) @ matrix(name).T)


def lab(xyz_NC: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50."""
    t = xyz_NC / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def xyz_of_lab(lab_NC: np.ndarray) -> np.ndarray:
    """Its inverse."""
    y = (lab_NC[..., 0] + 16) / 116
    f = np.stack([y + lab_NC[..., 1] / 500, y, y - lab_NC[..., 2] / 200], -1)
    return np.asarray(D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def delta_e(one_NC: np.ndarray, other_NC: np.ndarray) -> np.ndarray:
    """CIE 1976: distances in Lab."""
    return np.asarray(np.linalg.norm(one_NC - other_NC, axis=-1))


# A press: each ink takes a share of one light of a space that is smaller than sRGB, black of all.
INK = 0.93
STRAIGHT = np.array([0, 65535])  # a curve
_PRESS = np.array([[0.60, 0.25, 0.11], [0.32, 0.60, 0.08], [0.03, 0.08, 0.72]])
PRESS = _PRESS * (D50 / _PRESS.sum(axis=1))[:, None]


def printed(cmyk: np.ndarray) -> np.ndarray:
    """XYZ under D50 of inks in [0, 1], [..., 4]."""
    cmyk = np.asarray(cmyk, np.float64)
    light = (1 - INK * cmyk[..., :3]) * (1 - INK * cmyk[..., 3:])
    return np.asarray(light @ PRESS.T)


def inks(xyz_NC: np.ndarray) -> np.ndarray:
    """Inks that print it, or what is nearest by each light; half of the grey is black."""
    light = np.clip(xyz_NC @ np.linalg.inv(PRESS).T, (1 - INK) ** 2, 1)
    grey = light.max(axis=-1, keepdims=True)
    black = np.clip((1 - np.sqrt(grey)) / INK, 0, 1)
    cmy = np.clip((1 - light / (1 - INK * black)) / INK, 0, 1)
    return np.concatenate([cmy, black], axis=-1)


def press_profile(*, device_class: bytes = b"prtr", space: bytes = b"CMYK") -> bytes:
    """The ICC profile of that press: tables from inks to Lab, and back."""
    steps = [np.linspace(0, 1, 9)] * 4
    forth = lab(printed(np.stack(np.meshgrid(*steps, indexing="ij"), -1)))
    lightness, chroma = np.linspace(0, 100, 33), np.linspace(-128, 128 - 1 / 256, 33)
    # 100 is 65280 in Lab of 16 bits: a curve brings white to the table's last step.
    entries = np.arange(258) * 255
    whole = np.minimum(np.rint(entries * 65535 / 65280), 65535)
    grid = np.stack(np.meshgrid(lightness, chroma, chroma, indexing="ij"), -1)
    forth16 = np.stack(
        [forth[..., 0] / 100 * 65280, *((forth[..., i] + 128) * 256 for i in (1, 2))]
    )
    tables = {
        b"desc": struct.pack(">4sII", b"desc", 0, 6) + b"press\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz_number(D50),
        b"A2B0": _lut16([STRAIGHT] * 4, 3, 9, np.moveaxis(forth16, 0, -1)),
        b"B2A0": _lut16([whole, entries, entries], 4, 33, inks(xyz_of_lab(grid)) * 65535),
    }
    start = 132 + 12 * len(tables)
    index, data = struct.pack(">I", len(tables)), b""
    for name, value in tables.items():
        index += struct.pack(">4sII", name, start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(data), 0x02400000, device_class, space, b"Lab ", b"acsp"
    )
    return header.ljust(68, b"\0") + _xyz_number(D50)[8:] + bytes(48) + index + data


def _xyz_number(value: np.ndarray) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(float(each) * 65536) for each in value))


def _lut16(curves: list[np.ndarray], out: int, grid: int, values: np.ndarray) -> bytes:
    """lut16Type: no matrix, a curve for each input, 16-bit values, the first input slowest."""
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    counts = struct.pack(">HH", len(curves[0]), len(STRAIGHT))
    head = struct.pack(">4sIBBBx", b"mft2", 0, len(curves), out, grid) + matrix + counts
    parts = [*curves, np.clip(np.rint(values), 0, 65535), *[STRAIGHT] * out]
    return head + b"".join(part.astype(">u2").tobytes() for part in parts)
