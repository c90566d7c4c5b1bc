"""What a picture says of itself beside its pixels: its colour profile, EXIF and XMP.

They go with a picture that is made larger. Pixels are upright by then, so that the turn that EXIF
and XMP tell is left out. What is damaged counts as not there: readers pass over it too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .faults import DECODER_ERRORS, quiet

ORIENTATION, PIXELS_WIDE, PIXELS_HIGH, EXIF_IFD = 0x0112, 0xA002, 0xA003, 0x8769
MOST_BYTES = 2**20  # of each; profiles of printers are the largest
EXIF_START = b"Exif\0\0"
TURN = re.compile(
    rb'\s*tiff:Orientation\s*=\s*("[^"]*"|\'[^\']*\')|<tiff:Orientation>[^<]*</tiff:Orientation>'
)


@dataclass(frozen=True)
class Metadata:
    """An ICC profile, EXIF as a TIFF of its own, and an XMP packet; None where there is none."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def as_json(self) -> dict[str, str]:
        """What there is, as texts."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: base64.b64encode(value).decode("ascii") for name, value in found.items()}

    @staticmethod
    def from_json(values: Any) -> Metadata:
        """What `as_json` told; nothing of what is none."""
        found = {}
        for name in ("icc", "exif", "xmp"):
            text = values.get(name) if isinstance(values, Mapping) else None
            try:
                found[name] = base64.b64decode(text, validate=True) if text else None
            except (binascii.Error, TypeError, ValueError):
                found[name] = None
        return Metadata(**found)


NOTHING = Metadata()


def read(path: str | Path) -> Metadata:
    """A picture's; nothing of a clip, and of what Pillow does not open."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with quiet(), Image.open(path) as image:
            icc, xmp = image.info.get("icc_profile"), image.info.get("xmp")
            return Metadata(_bytes(icc), _bytes(_exif(image)), _bytes(_turned(xmp)))
    except DECODER_ERRORS:
        return NOTHING
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _exif(image: Any) -> bytes | None:
    """Its EXIF without what is true no more; of a TIFF, whose tags are its EXIF, the part below."""
    exif = image.getexif()
    inner = dict(exif.get_ifd(EXIF_IFD))
    for tag in (PIXELS_WIDE, PIXELS_HIGH):
        inner.pop(tag, None)
    kept = type(exif)()
    if image.format != "TIFF":
        for tag, value in exif.items():
            if tag not in (ORIENTATION, EXIF_IFD):
                kept[tag] = value
    if inner:
        kept[EXIF_IFD] = inner
    if not len(kept):
        return None
    found: bytes = kept.tobytes()
    return found.removeprefix(EXIF_START)


def _turned(xmp: Any) -> bytes | None:
    data = xmp.encode() if isinstance(xmp, str) else xmp
    return TURN.sub(b"", data) if isinstance(data, bytes) else None


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) and 0 < len(value) <= MOST_BYTES else None
