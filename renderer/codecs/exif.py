"""EXIF of a delivered file: resolution, who drew it, and from what, beside what it carried.

JPEG, WebP and AVIF have no room for texts of their own: galleries read the parameters from EXIF's
user comment. Tags: EXIF 2.32, section 4.6.
"""

from __future__ import annotations

import struct

from PIL import Image, TiffImagePlugin

from ..inputs.metadata import EXIF_START, NOTHING, Metadata
from ..store.provenance import as_json, parameters, software
from ..store.store import Store

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UNIT, SOFTWARE = 0x010E, 0x011A, 0x011B, 0x0128, 0x0131
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
INCH = 2
UNICODE = b"UNICODE\0"
RATIONAL_UNIT = 10000  # of a dot per inch


def exif(store: Store, dpi: float, carried: Metadata = NOTHING, most: int | None = None) -> bytes:
    """A TIFF of tags alone, without "Exif" before it; of `most` bytes at most.

    What the picture carried stays, except for what is said anew. Where all is too long, what was
    carried is left out, then the generation parameters.
    """
    kept = _tags(carried.exif)
    for tags, is_told in ((kept, True), (Image.Exif(), True), (Image.Exif(), False)):
        found = _bytes(tags, store, dpi, is_told=is_told)
        if most is None or len(found) <= most:
            break
    return found


def _bytes(tags: Image.Exif, store: Store, dpi: float, *, is_told: bool) -> bytes:
    resolution = TiffImagePlugin.IFDRational(round(dpi * RATIONAL_UNIT), RATIONAL_UNIT)
    tags[X_RESOLUTION] = tags[Y_RESOLUTION] = resolution
    tags[UNIT], tags[SOFTWARE] = INCH, software()
    if is_told:
        tags[DESCRIPTION] = as_json(store.provenance)
        comment = UNICODE + parameters(store).encode("utf-16-be")
        tags[EXIF_IFD] = {**tags.get_ifd(EXIF_IFD), USER_COMMENT: comment}
    return tags.tobytes().removeprefix(EXIF_START)


def _tags(carried: bytes | None) -> Image.Exif:
    """Those of a picture; none of what is damaged, as it is read back from a store."""
    tags = Image.Exif()
    try:
        if carried is not None:
            tags.load(EXIF_START + carried)
            tags.tobytes()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return Image.Exif()
    return tags
