"""Samples of any depth as RGB floats in [0, 1], on white, upright.

Rows are converted in blocks, so that the result is all that is large.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ..errors import MediaError
from .colors import Convert

ROWS = 256
LEAST_ALPHA = 2.0**-16  # by which premultiplied colours are divided
# Floats count as colours up to here: what sharpening and resizing leave beyond 0 and 1 is cut.
LOWEST, HIGHEST = -0.5, 1.5

# Rows of samples [H, W, C], and the number of the first, to RGB [H, W, 3].
Rows = Callable[[np.ndarray, int], np.ndarray]


def by_rows(samples_HWC: np.ndarray, rows: Rows, orientation: int = 1) -> np.ndarray:
    """All rows of samples as `rows` makes them, upright: RGB [H, W, 3], float32."""
    height, width = samples_HWC.shape[:2]
    rgb_HWC = np.empty((*turned(height, width, orientation), 3), np.float32)
    # The same memory in the order of the samples: what turns the result back.
    stored_HWC = upright(rgb_HWC, {6: 8, 8: 6}.get(orientation, orientation))
    for top in range(0, height, ROWS):
        stored_HWC[top : top + ROWS] = rows(samples_HWC[top : top + ROWS], top)
    return rgb_HWC


def integers(
    samples_HWC: np.ndarray,
    bits: int,
    *,
    colours: int | None = None,
    premultiplied: bool = False,
    convert: Convert | None = None,
) -> np.ndarray:
    """So many colours of so many bits, with alpha or without, as RGB [H, W, 3].

    They are grey or RGB, by their number if that is not told, or what `convert` takes.
    """
    unit_HWC = unit(samples_HWC, bits)
    colours = colours or (1 if unit_HWC.shape[2] < 3 else 3)
    alpha_HWC = unit_HWC[..., colours:] if unit_HWC.shape[2] > colours else None
    return on_white(
        unit_HWC[..., :colours], alpha_HWC, premultiplied=premultiplied, convert=convert
    )


def unit(samples: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of so many bits as float32 in [0, 1]."""
    return np.clip(samples.astype(np.float32) / np.float32(2**bits - 1), 0, 1)


def finite(samples_HWC: np.ndarray, first_row: int, path: str | os.PathLike[str]) -> np.ndarray:
    """Floats as float32 in [0, 1]; raises `MediaError` that names one that is no colour."""
    wrong_HWC = ~((samples_HWC >= LOWEST) & (samples_HWC <= HIGHEST))
    if wrong_HWC.any():
        row, column, sample = (int(i) for i in np.argwhere(wrong_HWC)[0])
        raise MediaError(
            f"{path}: sample {sample} at row {first_row + row}, column {column} is "
            f"{float(samples_HWC[row, column, sample])}; floats of 0 (black) to 1 (white) work"
        )
    return np.clip(samples_HWC.astype(np.float32), 0, 1)


def on_white(
    colour_HWC: np.ndarray,
    alpha_HWC: np.ndarray | None,
    *,
    premultiplied: bool,
    convert: Convert | None = None,
) -> np.ndarray:
    """Grey [H, W, 1], RGB [H, W, 3] or what `convert` takes, with alpha [H, W, 1], on white.

    That is RGB [H, W, 3].
    """
    if convert is not None:
        if alpha_HWC is not None and premultiplied:
            colour_HWC = np.clip(colour_HWC / np.maximum(alpha_HWC, LEAST_ALPHA), 0, 1)
        colour_HWC, premultiplied = convert(colour_HWC), False
    if alpha_HWC is not None:
        seen_HWC = colour_HWC if premultiplied else colour_HWC * alpha_HWC
        colour_HWC = np.clip(seen_HWC + (1 - alpha_HWC), 0, 1)
    return np.broadcast_to(colour_HWC, (*colour_HWC.shape[:2], 3))


def turned(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Rows and columns of what `upright` gives."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def upright(pixels_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (CIPA DC-008, tag 274): mirrored, turned, or both. A view."""
    if orientation in (5, 6, 7, 8):
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC
