"""Colours of pictures that are handed in: sRGB by the ICC profile that they hold, or refused.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import numpy as np

from ..color.conversion import Conversion
from ..color.profiles import SRGB, Profile, named, parsed
from ..errors import ExportError, MediaError

# What is wanted of a picture: sRGB; its own RGB where a network can take it for sRGB, else sRGB; or
# numbers as they are stored, for masks.
Colors = Literal["srgb", "own", "numbers"]
# Colours [H, W, C], float32 in [0, 1], as sRGB [H, W, 3].
Convert = Callable[[np.ndarray], np.ndarray]

# Half a step of 8 bits: profiles of sRGB by other makers differ by less.
SAME = 0.5 / 255
# Lightness of half: sRGB's is 53, Adobe RGB's 54, ProPhoto's 62; linear light's is 76.
DARKEST, LIGHTEST = 45.0, 65.0
WORKS = "embed one of its own colours, or none"


def conversion(
    icc: bytes | None, space: str, path: str | os.PathLike[str], wanted: Colors = "srgb"
) -> Convert | None:
    """To sRGB from what a picture of samples in `space` (RGB, GRAY, CMYK) holds.

    None where they stay as they are: there is no profile, it is sRGB's, or they are `wanted` so.
    Grey under a profile of RGB is equal parts of it. Raises `MediaError` for a profile that is
    damaged, or of other colours.
    """
    if icc is None or wanted == "numbers":
        return None
    found = _checked(icc, space, path)
    if is_srgb(found) or (wanted == "own" and is_kept(found)):
        return None
    change = Conversion(found, named(SRGB))

    def convert(colour_HWC: np.ndarray) -> np.ndarray:
        is_grey = colour_HWC.shape[2] == 1 and found.channels == 3
        return change.floats(np.repeat(colour_HWC, 3, axis=2) if is_grey else colour_HWC)

    return convert


def own_profile(icc: bytes | None, space: str, path: str | os.PathLike[str]) -> bytes | None:
    """The profile of pixels that are wanted as a picture's "own"; None: they are sRGB."""
    if icc is None:
        return None
    found = _checked(icc, space, path)
    return icc if is_srgb(found) or is_kept(found) else None


def is_srgb(profile: Profile) -> bool:
    """Whether its numbers mean what sRGB's do."""
    if profile.space != "RGB":
        return False
    steps = np.linspace(0, 1, 9, dtype=np.float32)
    grid_HWC = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    found_HWC = Conversion(profile, named(SRGB)).floats(grid_HWC)
    return bool(np.abs(found_HWC - grid_HWC).max() < SAME)


def is_kept(profile: Profile) -> bool:
    """Whether a network can take its numbers for sRGB: it is of RGB, with a tone curve alike."""
    return profile.space == "RGB" and DARKEST < lightness_of_half(profile) < LIGHTEST


def lightness_of_half(profile: Profile) -> float:
    """CIE L* of equal parts of one half, of 100."""
    half_HWC = np.full((1, 1, 3), 0.5, np.float32)
    grey = float(Conversion(profile, named(SRGB)).floats(half_HWC)[0, 0].mean())
    linear = grey / 12.92 if grey <= 0.04045 else ((grey + 0.055) / 1.055) ** 2.4
    return float(116 * np.cbrt(linear) - 16 if linear > 0.008856 else 903.3 * linear)


def _checked(icc: bytes, space: str, path: str | os.PathLike[str]) -> Profile:
    try:
        found = parsed(icc, "its profile", ExportError, WORKS)
        if found.space == space or (found.space, space) == ("RGB", "GRAY"):
            Conversion(found, named(SRGB)).check(path, has_alpha=False)
            return found
    except ExportError as error:
        raise MediaError(f"{path}: {error}") from None
    raise MediaError(f"{path} holds {space} and an ICC profile of {found.space}; {WORKS}")
