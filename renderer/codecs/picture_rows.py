"""Rows of a store's picture as a format takes them: with alpha, of other bits, linear.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import functools

import numpy as np

from ..color.conversion import Conversion
from ..color.profiles import NAMED
from ..errors import ExportError
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import check_picture


def has_alpha(layout: StoreLayout) -> bool:
    """Whether a store's picture has alpha."""
    return any(array.name == "alpha" for array in layout.latents)


def of_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """The same pixels of so many bits a sample, to the nearest value; uint8, or uint16 of more."""
    kind = np.uint8 if bits == 8 else np.uint16
    top, most = int(np.iinfo(pixels.dtype).max), 2**bits - 1
    if top == most:
        return pixels
    return ((pixels.astype(np.uint32) * most + top // 2) // top).astype(kind)


def linear(pixels_HWC: np.ndarray, colors: Conversion) -> np.ndarray:
    """Light in proportion, float32 in the primaries of `colors`' target, which has a name.

    Of integers; colours are multiplied by their alpha where there is some.
    """
    top = np.float32(np.iinfo(pixels_HWC.dtype).max)
    coded_HWC, curve = pixels_HWC[..., :3], NAMED[colors.target.name].curve
    if colors.is_plain:
        light_HWC = _light_of_integers(pixels_HWC.dtype.str, curve)[coded_HWC]
    else:
        light_HWC = _light(colors.floats(coded_HWC.astype(np.float32) / top), curve)
    if pixels_HWC.shape[2] == 3:
        return light_HWC
    alpha_HWC = pixels_HWC[..., 3:] / top
    return np.concatenate([light_HWC * alpha_HWC, alpha_HWC], axis=2)


@functools.cache
def _light_of_integers(dtype: str, curve: tuple[float, ...]) -> np.ndarray:
    """Of every integer of a type."""
    top = np.iinfo(np.dtype(dtype)).max
    return _light(np.arange(top + 1) / top, curve)


def _light(coded: np.ndarray, curve: tuple[float, ...]) -> np.ndarray:
    """float32, by a curve as `MatrixProfile` has it: an exponent alone, or with a line below."""
    if len(curve) == 1:
        return (coded ** curve[0]).astype(np.float32)
    exponent, a, b, c, d = curve
    return np.where(coded >= d, (a * coded + b) ** exponent, c * coded).astype(np.float32)


def check_sides(
    out: Location, layout: StoreLayout, longest: int, name: str, most: int | None = None
) -> None:
    """Raise `ExportError` unless it is a picture with sides, and pixels in all, of no more."""
    check_picture(out, layout)
    height, width = layout.height, layout.width
    if max(height, width) > longest:
        raise ExportError(
            f"{out}: {name} ends at {longest} pixels a side, and the picture is {width}x{height}; "
            "use .tif, .png or .exr"
        )
    if most is not None and height * width > most:
        raise ExportError(
            f"{out}: readers of {name} take {most} pixels, and the picture has {height * width} "
            f"({width}x{height}); use .tif, .png or .exr"
        )
