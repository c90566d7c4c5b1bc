"""Pictures that come with a request: written into the job's folder under names of ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..errors import reason
from .api_error import ApiError, invalid

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
NAMES = ("image", "mask")
PART = 1 << 20  # bytes of a file at a time


def written(
    files: Mapping[str, BinaryIO], folder: Path, most_pixels: int
) -> tuple[dict[str, Path], tuple[int, int]]:
    """(files of the fields `init` and `mask`, rows and columns of the picture); raises `ApiError`.

    A mask is transparent where something else is wanted, in the file of its own or, without one,
    in the picture itself.
    """
    for name in files:
        if name not in NAMES:
            raise invalid(f"unknown file {name[:100]!r}; there are image and mask", name[:100])
    if "image" not in files:
        raise invalid("no image; give one", "image", "missing_required_parameter")
    kind, size, has_alpha = _checked(files["image"], "image", most_pixels)
    found = {"init": _copied(files["image"], folder / f"image{FORMATS[kind]}")}
    masking = "mask" if "mask" in files else "image"
    if masking == "mask":
        _, mask_size, has_alpha = _checked(files["mask"], "mask", most_pixels)
        if mask_size != size:
            raise invalid(
                f"mask is {mask_size[1]}x{mask_size[0]} pixels and image {size[1]}x{size[0]}; "
                "give one of that size",
                "mask",
            )
        if not has_alpha:
            raise invalid("mask has no transparent pixels, which say where to edit", "mask")
    if has_alpha:
        found["mask"] = _mask(files[masking], folder / "mask.png")
    return found, size


def _checked(file: BinaryIO, name: str, most_pixels: int) -> tuple[str, tuple[int, int], bool]:
    """(format, rows and columns, whether some of it is transparent), all of it decoded once."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs: their size is refused here
            with Image.open(file, formats=tuple(FORMATS)) as picture:
                kind, (width, height) = str(picture.format), picture.size
                if width * height > most_pixels:
                    raise invalid(
                        f"{name} is {width}x{height} pixels; at most {most_pixels} work", name
                    )
                has_alpha = _alpha(picture).min() < 255
    except ApiError:
        raise
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise invalid(
            f"{name} cannot be read as PNG, JPEG or WebP: {reason(error, 200)}", name
        ) from None
    return kind, (height, width), bool(has_alpha)


def _alpha(picture: Image.Image) -> np.ndarray:
    """Its alpha [H, W], uint8; 255 where it has none."""
    is_clear = picture.has_transparency_data
    plain = picture.convert("RGBA") if is_clear else picture.convert("RGB")
    if not is_clear:
        return np.full((1, 1), 255, np.uint8)
    return np.asarray(plain.getchannel("A"))


def _copied(file: BinaryIO, path: Path) -> Path:
    """The file as it came."""
    file.seek(0)
    with open(path, "xb") as out:
        while part := file.read(PART):
            out.write(part)
    return path


def _mask(file: BinaryIO, path: Path) -> Path:
    """A mask as a render takes it: white where the picture is transparent."""
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=tuple(FORMATS)) as picture:
            white = np.where(_alpha(picture) == 0, 255, 0).astype(np.uint8)
    Image.fromarray(white).save(path)
    return path
