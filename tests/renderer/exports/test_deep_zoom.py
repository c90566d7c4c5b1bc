"""Deep Zoom tiles are the store's pyramid, down to one pixel, for any viewer of .dzi files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from contracts.export import draw, make_store, picture, psnr
from frieze.renderer.codecs.output import Output
from frieze.renderer.codecs.tile_encoder import TileEncoder
from frieze.renderer.color.conversion import Conversion
from frieze.renderer.color.profiles import named
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import deep_zoom
from frieze.renderer.exports.deep_zoom import Options
from frieze.renderer.inputs.metadata import Metadata
from frieze.renderer.store.layout import halve
from frieze.renderer.store.store import Store
from support.command_line import frieze, refused
from support.tiled_folders import joined, tile
from tolerances import TILE_PSNR


@pytest.mark.parametrize("format", ["jpg", "png"])
def test_every_level_is_half_of_the_one_before_down_to_one_pixel(
    tmp_path: Path, format: str
) -> None:
    pixels_HWC = picture(530, 1100)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    out = deep_zoom.export(Output.of(store.path, tmp_path / "a.dzi"), Options(format=format))
    levels = math.ceil(math.log2(1100)) + 1
    assert sorted(os.listdir(out)) == ["frieze.json", "image.dzi", "image_files"]
    assert sorted(map(int, os.listdir(out / "image_files"))) == list(range(levels))
    assert len(os.listdir(out / "image_files" / str(levels - 1))) == 2 * 3
    for halvings in range(levels):
        found_HWC = joined(out, halvings)
        if format == "png":
            np.testing.assert_array_equal(found_HWC, pixels_HWC)
        else:
            assert psnr(found_HWC, pixels_HWC) > TILE_PSNR
            if halvings < 3:
                assert psnr(found_HWC, pixels_HWC[::-1]) < TILE_PSNR, "control"
        pixels_HWC = halve(pixels_HWC)
    assert joined(out, levels - 1).shape == (1, 1, 3)


def test_sixteen_bits_become_the_nearest_eight(tmp_path: Path) -> None:
    deep_HWC = np.arange(64 * 64 * 3, dtype=np.uint16).reshape(64, 64, 3) * 5
    store = make_store(tmp_path / "a.zarr", deep_HWC, (32, 32))
    out = deep_zoom.export(Output.of(store.path, tmp_path / "a.dzi"), Options(format="png"))
    np.testing.assert_array_equal(joined(out), np.rint(deep_HWC / 257).astype(np.uint8))
    assert not np.array_equal(joined(out), deep_HWC >> 8), "control"


def test_better_quality_is_closer_and_larger(tmp_path: Path) -> None:
    pixels_HWC = picture(200, 300)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64))
    coarse = deep_zoom.export(Output.of(store.path, tmp_path / "a.dzi"), Options(quality=30))
    fine = deep_zoom.export(Output.of(store.path, tmp_path / "b.dzi"), Options(quality=98))
    assert psnr(joined(fine), pixels_HWC) > psnr(joined(coarse), pixels_HWC) + 5
    assert len(tile(fine / "image_files" / "0" / "0_0.jpg")) == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("format=webp", "format of deep_zoom = 'webp'; it must be jpg or png"),
        ("quality=0", "quality of deep_zoom = 0; it must be a whole number from 1 to 100"),
        ("quality=101", "quality of deep_zoom = 101"),
        ("quality=high", "quality of deep_zoom = 'high'"),
        ("size=256", "deep_zoom has no option 'size'"),
        ("workers=0", "workers of deep_zoom = 0"),
    ],
)
def test_what_tiles_cannot_be_is_refused_before_any_work(
    tmp_path: Path, word: str, told: str
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    refused(frieze("export", str(store.path), str(tmp_path / "a.dzi"), "--option", word), told)
    assert os.listdir(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize(("format", "quality"), [("webp", 90), ("jpg", 0), ("jpg", "high")])
def test_an_encoder_is_what_there_is(format: str, quality: object) -> None:
    with pytest.raises(ExportError, match=r"webp|0 does not work|high"):
        TileEncoder(format, quality)  # type: ignore[arg-type]


def test_tiles_have_the_profile_that_the_picture_was_given(tmp_path: Path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    run = {**plain.run, "carried": Metadata(icc=icc).as_json()}
    store = Store.create(tmp_path / "b.zarr", plain.layout, fingerprint="f", run=run)
    draw(store, picture(64, 64), 0, 64, None)
    store.finish()
    for place, expected in ((store.path, icc), (plain.path, named("srgb").data)):
        out = deep_zoom.export(Output.of(place, place.with_suffix(".dzi")))
        with Image.open(out / "image_files" / "6" / "0_0.jpg") as tile:
            assert tile.info.get("icc_profile") == expected


def test_tiles_of_other_colours_are_converted_at_every_level(tmp_path: Path) -> None:
    pixels_HWC = picture(700, 90)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    options = Options(format="png")
    out = deep_zoom.export(Output.of(store.path, tmp_path / "a.dzi", color="display-p3"), options)
    wide = Conversion(named("srgb"), named("display-p3"))
    for halvings in range(2):
        np.testing.assert_array_equal(joined(out, halvings), wide.rows(pixels_HWC))
        assert not np.array_equal(joined(out, halvings), pixels_HWC), "control"
        pixels_HWC = halve(pixels_HWC)
