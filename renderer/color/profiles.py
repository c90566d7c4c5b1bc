"""ICC profiles by name, from files and from pictures: read, and refused in one line.

ICC.1:2022, section 7.2: what a header says of class and colour space.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import FriezeError, shown
from ..input_files import fault
from .matrix_profile import HEADER_BYTES, MatrixProfile

SRGB, DISPLAY_P3, ADOBE_RGB = "srgb", "display-p3", "adobe-rgb"
_D65 = (0.3127, 0.3290)
# IEC 61966-2-1:1999, section 5.2, the inverse of its transfer function.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
NAMED = {
    # Primaries of ITU-R BT.709-6.
    SRGB: MatrixProfile("sRGB", (0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65, _SRGB_CURVE),
    # Primaries of SMPTE EG 432-1 (D65), sRGB's curve: CSS Color 4, section 10.3.
    DISPLAY_P3: MatrixProfile(
        "Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65, _SRGB_CURVE
    ),
    # Adobe RGB (1998) Color Image Encoding, version 2005-05, sections 4.3.1 and 4.3.4.
    ADOBE_RGB: MatrixProfile(
        "Adobe RGB (1998)", (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65, (2.19921875,)
    ),
}
SUFFIXES = (".icc", ".icm")
MOST_BYTES = 2**24  # of a file: profiles of printers have up to a few MiB
CHANNELS = {"RGB": 3, "CMYK": 4, "GRAY": 1}
# Classes that say what a device's or a space's numbers look like (section 7.2.5).
CLASSES = {b"mntr": "display", b"prtr": "printer", b"scnr": "scanner", b"spac": "colour space"}
OTHERS = {b"link": "device link", b"abst": "abstract", b"nmcl": "named colours"}
WORKS = f"{', '.join(NAMED)} or an ICC profile of RGB or CMYK work"


@dataclass(frozen=True)
class Profile:
    """An ICC profile that says what colours look like; `name` is what a user calls it."""

    name: str
    data: bytes
    space: str  # RGB, CMYK or GRAY

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return CHANNELS[self.space]

    @property
    def is_input(self) -> bool:
        """Whether it is a scanner's or a camera's: it reads colours, and none are made for it."""
        return self.data[12:16] == b"scnr"


@functools.cache
def named(name: str) -> Profile:
    """One of `NAMED`."""
    return Profile(name, NAMED[name].icc(), "RGB")


def profile(name: str, error: type[FriezeError]) -> Profile:
    """By a name of `NAMED`, or from a file; raises `error` in one line where it is no such."""
    if name.lower() in NAMED:
        return named(name.lower())
    path = Path(name).expanduser()
    if not name or (not os.path.lexists(path) and not path.suffix and path.name == name):
        raise error(f"no colour space {shown(name)}; {WORKS}")
    if (why := fault(path)) is not None:
        raise error(f"{why}; {WORKS}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise error(f"{name} has {path.stat().st_size} bytes, {MOST_BYTES} are the most")
        data = path.read_bytes()
    except OSError as cause:
        raise error(f"{name} cannot be read ({cause.strerror}); {WORKS}") from cause
    return parsed(data, name, error)


def parsed(data: bytes, name: str, error: type[FriezeError], works: str = WORKS) -> Profile:
    """The profile that these bytes are; raises `error` where they are none that has colours.

    `works` is what would do instead.
    """
    import imagecodecs

    if len(data) < HEADER_BYTES or data[36:40] != b"acsp":
        raise error(f"{name} is no ICC profile; {works}")
    kind, space = data[12:16], data[16:20].decode("latin-1").strip()
    if kind in OTHERS:
        raise error(f"{name} is an ICC profile of class {OTHERS[kind]}; {works}")
    if kind not in CLASSES or space not in CHANNELS:
        what = CLASSES.get(kind, f"class {shown(kind.decode('latin-1'))}")
        raise error(f"{name} is an ICC profile of {shown(space)} ({what}); {works}")
    try:
        if int.from_bytes(data[:4], "big") > len(data):
            raise imagecodecs.CmsError("cut off")
        imagecodecs.cms_profile_validate(data)
    except imagecodecs.CmsError:
        raise error(f"{name} is a damaged ICC profile; {works}") from None
    return Profile(name, data, space)
