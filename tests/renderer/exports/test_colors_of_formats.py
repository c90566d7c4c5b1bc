"""Formats with a profile: what a reader makes of it is the colour that was drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from contracts.export import make_store
from frieze.renderer import plugins
from frieze.renderer.codecs import avif_grid
from frieze.renderer.codecs.output import Output
from frieze.renderer.color.profiles import DISPLAY_P3, NAMED, SRGB
from frieze.renderer.errors import ExportError
from support.exr_files import read_exr, srgb_light
from tolerances import LIGHT, PATCH_LEVELS

PATCHES = [(200, 40, 60), (40, 160, 90), (30, 60, 190), (128, 128, 128), (250, 240, 20)]
NAMES = {"jpeg": "a.jpg", "webp": "a.webp", "avif": "a.avif"}


def patches() -> np.ndarray:
    """Stripes [64, 64 * 5, 3], wide enough that no coder mixes them in the middle."""
    row_WC = np.repeat(np.array(PATCHES, np.uint8), 64, axis=0)
    return np.repeat(row_WC[None], 64, axis=0)


def middles(pixels_HWC: np.ndarray) -> np.ndarray:
    return pixels_HWC[32, 32::64].astype(np.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("color", [None, DISPLAY_P3])
def test_a_reader_finds_the_colours_through_the_profile(
    tmp_path: Path, name: str, color: str | None
) -> None:
    store = make_store(tmp_path / "a.zarr", patches(), (64, 64))
    out = plugins.load("exports", name).export(
        Output.of(store.path, tmp_path / NAMES[name], color=color)
    )
    with Image.open(out) as image:
        icc = image.info["icc_profile"]
        assert icc == NAMED[color or SRGB].icc()
        shown = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        )
        assert np.abs(middles(np.asarray(shown)) - PATCHES).max() <= PATCH_LEVELS
        off = np.abs(middles(np.asarray(image)) - PATCHES).max()
    assert (off > 2 * PATCH_LEVELS) == (color is not None), "control: the numbers are others"


def test_avif_says_by_numbers_what_is_srgb_and_nothing_of_others(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", patches(), (64, 64))
    avif = plugins.load("exports", "avif")
    for color, code in ((None, avif_grid.SRGB), (DISPLAY_P3, avif_grid.OF_PROFILE)):
        out = avif.export(Output.of(store.path, tmp_path / "a.avif", color=color, overwrite=True))
        numbers = b"".join(value.to_bytes(2, "big") for value in code)
        assert b"colrnclx" + numbers + b"\x80" in out.read_bytes()


def to_xyz(color: str) -> np.ndarray:
    """Of light in a space's primaries to XYZ, by the definition of chromaticities."""
    space = NAMED[color]
    columns = [(x / y, 1, (1 - x - y) / y) for x, y in (space.red, space.green, space.blue)]
    primaries = np.array(columns).T
    x, y = space.white
    return primaries * np.linalg.solve(primaries, [x / y, 1, (1 - x - y) / y])


@pytest.mark.parametrize("color", list(NAMED))
def test_light_in_other_primaries_is_the_same_light(tmp_path: Path, color: str) -> None:
    store = make_store(tmp_path / "a.zarr", patches(), (64, 64))
    exr = plugins.load("exports", "exr")
    options = exr.Options(pixels="float")
    out = exr.export(Output.of(store.path, tmp_path / "a.exr", color=color), options)
    light_HWC, about = read_exr(out)
    expected = srgb_light(np.array(PATCHES, np.uint8)) @ to_xyz(SRGB).T
    found = middles(light_HWC) @ to_xyz(color).T
    np.testing.assert_allclose(found, expected, atol=LIGHT)
    wrong = middles(light_HWC) @ to_xyz(SRGB).T
    assert np.allclose(wrong, expected, atol=LIGHT) == (color == SRGB), "control"
    space = NAMED[color]
    told = (*space.red, *space.green, *space.blue, *space.white)
    assert about["chromaticities"] == pytest.approx(told)
    assert space.name in about["comments"]


def test_light_of_a_profile_without_a_known_curve_is_one_line(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", patches(), (64, 64))
    profile = tmp_path / "mine.icc"
    profile.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    with pytest.raises(ExportError, match=r"OpenEXR has the light of srgb, .* use \.tif") as caught:
        plugins.load("exports", "exr").export(
            Output.of(store.path, tmp_path / "a.exr", color=str(profile))
        )
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "mine.icc"]
