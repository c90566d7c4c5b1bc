"""What every watermark must do: called by the tests for each one in `renderer/watermarks`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from contracts.export import picture
from frieze.renderer import RenderSpec, plugins
from frieze.renderer.watermarks import of_spec

NAMES = plugins.names("watermarks")
SIDES = (300, 200)


def is_the_same_however_rows_are_cut(name: str, bits: int) -> None:
    """Whole, in pieces of any height, in any order, twice: a pixel's mark is its place's."""
    pixels_HWC = picture(*SIDES, bits)
    spec = RenderSpec(watermark=name, height=SIDES[0], width=SIDES[1])
    mark = of_spec(spec)
    assert mark is not None
    before = pixels_HWC.copy()
    whole_HWC = mark(pixels_HWC, 0, None)
    assert np.array_equal(pixels_HWC, before), "what is handed in is not written to"
    assert (whole_HWC.shape, whole_HWC.dtype) == (pixels_HWC.shape, pixels_HWC.dtype)
    assert not np.array_equal(whole_HWC, pixels_HWC), "it marks nothing"
    for cuts in ((0, 64, 128, 192, 256, 300), (0, 1, 97, 98, 300)):
        for top, bottom in reversed(list(pairwise(cuts))):
            piece_HWC = mark(pixels_HWC[top:bottom], top, None)
            assert np.array_equal(piece_HWC, whole_HWC[top:bottom]), (top, bottom)
    shifted_HWC = mark(pixels_HWC[64:128], 0, None)  # the control: a place of their own
    assert not np.array_equal(shifted_HWC, whole_HWC[64:128])
