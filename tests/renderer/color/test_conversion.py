"""A chart of known colours through Display P3, Adobe RGB and a press, against formulas.

Shape suffixes: H rows, W columns, C channels, N patches.
"""

from __future__ import annotations

import numpy as np
import pytest

from frieze.renderer.color.conversion import INTENTS, Conversion
from frieze.renderer.color.profiles import Profile, named
from frieze.renderer.errors import ExportError
from support.colorimetry import (
    D50,
    PATCHES,
    delta_e,
    inks,
    lab,
    press_profile,
    printed,
    xyz,
)
from tolerances import COLOR_8_BITS, COLOR_16_BITS, COLOR_INKS, COLOR_UNCONVERTED

PRESS = Profile("press", press_profile(), "CMYK")


def patches(bits: int) -> np.ndarray:
    """The chart as one row [1, N, 3]."""
    return np.rint(PATCHES[None] / 255 * (2**bits - 1)).astype(f"uint{bits}")


@pytest.mark.parametrize(("bits", "most"), [(8, COLOR_8_BITS), (16, COLOR_16_BITS)])
@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb"])
def test_a_chart_keeps_its_colours(name: str, bits: int, most: float) -> None:
    """8 bits are as near as 8 bits can be; unconverted numbers are far off."""
    given = patches(bits)
    found = Conversion(named("srgb"), named(name)).rows(given)
    top = 2**bits - 1
    assert found.dtype == given.dtype
    expected = lab(xyz("srgb", given / top))
    assert delta_e(lab(xyz(name, found / top)), expected).max() < most
    assert delta_e(lab(xyz(name, given / top)), expected).max() > COLOR_UNCONVERTED, "control"
    back = Conversion(named(name), named("srgb")).rows(found)
    assert delta_e(lab(xyz("srgb", back / top)), expected).max() < 2 * most


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("intent", INTENTS)
def test_a_chart_is_printed_as_a_presss_profile_says(intent: str, bits: int) -> None:
    """What it can print; black becomes its black where the intent allows."""
    given = patches(bits)
    found = Conversion(named("srgb"), PRESS, intent).rows(given)
    top = 2**bits - 1
    assert found.shape == (*given.shape[:2], 4)
    measured = expected = xyz("srgb", given / top)
    # Black point compensation, linear in XYZ; the profile has no tables of saturation.
    if intent in ("perceptual", "relative"):
        black = printed(np.ones(4))[1]
        expected = measured * (1 - black) + D50 * black
    can = delta_e(lab(printed(inks(expected))), lab(expected)) < 0.01
    assert can.sum() > 18
    far = delta_e(lab(printed(found / top)), lab(expected))[can]
    assert far.max() < COLOR_INKS
    naive = np.concatenate([1 - given / top, np.zeros((*given.shape[:2], 1))], axis=-1)
    wrong = delta_e(lab(printed(naive)), lab(expected))[can]
    assert wrong.max() > COLOR_UNCONVERTED, "control: ink as the rest of light"
    if intent == "absolute":
        dark = given.sum(axis=-1) < 3 * 0.3 * top
        grey = (given.max(axis=-1) == given.min(axis=-1)) & dark
        compensated = Conversion(named("srgb"), PRESS, "relative").rows(given)
        assert not np.array_equal(found[grey], compensated[grey]), "control: it is another intent"


@pytest.mark.parametrize("target", [named("adobe-rgb"), PRESS])
def test_each_pixel_is_converted_by_itself(target: Profile) -> None:
    """Strips of any height, pieces of any size and any number of threads give the same bytes."""
    rng = np.random.default_rng(0)
    rows_HWC = rng.integers(0, 65536, (301, 500, 4), np.uint16)
    conversion = Conversion(named("srgb"), target)
    whole_HWC = conversion.rows(rows_HWC)
    assert np.array_equal(whole_HWC[..., -1], rows_HWC[..., -1]), "alpha stays"
    for height, workers in ((301, 1), (64, 3), (7, 2)):
        strips = [(top, rows_HWC[top : top + height]) for top in range(0, 301, height)]
        found = list(conversion.strips(strips, workers))
        assert [first for first, _ in found] == [first for first, _ in strips]
        assert np.array_equal(np.concatenate([rows for _, rows in found]), whole_HWC)
    assert not np.array_equal(conversion.rows(rows_HWC[::-1]), whole_HWC), "control"


def test_nothing_is_done_where_colours_are_the_same() -> None:
    rows_HWC = patches(8)
    assert Conversion(named("srgb"), named("srgb")).rows(rows_HWC) is rows_HWC


def test_grey_stays_grey_and_white_white() -> None:
    ramp_HWC = np.repeat(np.arange(65536, dtype=np.uint16)[None, :, None], 3, axis=2)
    for name in ("display-p3", "adobe-rgb"):
        found_HWC = Conversion(named("srgb"), named(name)).rows(ramp_HWC)
        assert np.array_equal(found_HWC.min(axis=2), found_HWC.max(axis=2))
        assert (found_HWC[0, 0, 0], found_HWC[0, -1, 0]) == (0, 65535)
    white = Conversion(named("srgb"), PRESS).rows(np.full((1, 1, 3), 255, np.uint8))
    assert white.max() == 0, "no ink on white paper"


def test_what_cannot_be_delivered_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match=r"^a\.tif would be CMYK with alpha") as caught:
        Conversion(named("srgb"), PRESS).check("a.tif", has_alpha=True)
    assert "\n" not in str(caught.value)
    Conversion(named("srgb"), PRESS).check("a.tif", has_alpha=False)
    Conversion(named("srgb"), named("adobe-rgb")).check("a.tif", has_alpha=True)
    one_way = press_profile().replace(b"B2A0", b"none")
    with pytest.raises(ExportError, match="cannot be converted to from srgb"):
        Conversion(named("srgb"), Profile("a.icc", one_way, "CMYK")).check("a", has_alpha=False)


@pytest.mark.parametrize("space", ["RGB", "CMYK"])
def test_pictures_come_from_a_scanner_and_do_not_go_to_one(space: str) -> None:
    """Its profile may have a way back, as one of three curves and a matrix has."""
    data = named("adobe-rgb").data if space == "RGB" else press_profile()
    scanner = Profile("scanner.icc", data[:12] + b"scnr" + data[16:], space)
    with pytest.raises(ExportError, match="of a scanner or camera") as caught:
        Conversion(named("srgb"), scanner).check("a.tif", has_alpha=False)
    assert "\n" not in str(caught.value)
    Conversion(scanner, named("srgb")).check("a.tif", has_alpha=False)
