"""Colours that a file states by numbers instead of a profile: Rec. ITU-T H.273 (07/2024).

AVIF and HEIF hold them in a box `nclx` (ISO/IEC 23008-12, section 6.5.5), PNG in a chunk cICP.
"""

from __future__ import annotations

from ..errors import FriezeError
from .matrix_profile import MatrixProfile
from .profiles import NAMED, SRGB

_D65 = (0.3127, 0.3290)
UNSPECIFIED = 2
# Table 2: red, green and blue; those under another white than D65 are not here.
PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# Table 3: curves of stills. Those of television (1, 6, 14, 15) are shown as sRGB's, as browsers do:
# their formulas are cameras', and no display undoes them exactly.
_SRGB_CURVE = NAMED[SRGB].curve
CURVES = {
    **dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
HDR = {16: "PQ", 18: "HLG"}
WORKS = "give it as sRGB, Display P3 or BT.2020 with a curve of standard range"


def icc_of(primaries: int, transfer: int, error: type[FriezeError]) -> bytes | None:
    """The profile that two code points mean, None for sRGB and what says nothing.

    Raises `error` for a curve of high dynamic range, and for what has no such numbers.
    """
    red_green_blue = PRIMARIES.get(1 if primaries == UNSPECIFIED else primaries)
    curve = CURVES.get(13 if transfer == UNSPECIFIED else transfer)
    if transfer in HDR:
        raise error(f"its colours are of high dynamic range ({HDR[transfer]}); {WORKS}")
    if red_green_blue is None or curve is None:
        raise error(f"its colours are {primaries} and {transfer} of H.273; {WORKS}")
    if red_green_blue == PRIMARIES[1] and curve == _SRGB_CURVE:
        return None
    return MatrixProfile(f"H.273 {primaries}/{transfer}", *red_green_blue, _D65, curve).icc()
