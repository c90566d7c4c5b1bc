"""OpenEXR: linear light, said so, the same bytes as the library writes of a whole picture."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from contracts.export import clip, make_store, picture
from frieze.renderer.codecs import exr_chunks
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import exr, exr_frames
from frieze.renderer.store.layout import LatentArray, StoreLayout
from support.exr_files import read_by_another, read_exr, srgb_light, srgb_values
from tolerances import HALF_STEP


def test_half_keeps_every_value_of_8_bits_and_another_library_reads_it(tmp_path: Path) -> None:
    pixels_HWC = picture(520, 96)
    pixels_HWC[0] = np.arange(96 * 3).reshape(96, 3) % 256  # every value there is
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (128, 96))
    out = exr.export(Output.of(store.path, tmp_path / "a.exr", dpi=254))
    light_HWC, about = read_by_another(out, tmp_path / "a.npy")
    assert (srgb_values(light_HWC) == pixels_HWC).all()
    assert not (np.rint(light_HWC * 255) == pixels_HWC).all(), "control: it is linear"
    assert (about["format"], about["channels"]) == ("half", ["R", "G", "B"])
    assert about["chromaticities"] == pytest.approx(
        (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
    )
    assert about["colorInteropID"] == about["oiio:ColorSpace"] == "lin_rec709_scene"
    assert (about["XResolution"], about["ResolutionUnit"]) == (254, "in")
    assert "(sRGB), made linear by that" in about["ImageDescription"]
    assert json.loads(about["frieze"])["picture"]["seed"] == 7
    assert "trainedAlgorithmicMedia" in about["xmp"]


@pytest.mark.parametrize("pixels", ["half", "float"])
def test_light_is_as_close_as_its_numbers_are(tmp_path: Path, pixels: str) -> None:
    pixels_HWC = picture(300, 64, 16)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64))
    out = exr.export(Output.of(store.path, tmp_path / "a.exr"), exr.Options(pixels=pixels))
    found_HWC, _ = read_exr(out)
    light_HWC = srgb_light(pixels_HWC)
    off = np.abs(found_HWC - light_HWC).max()
    assert off <= (HALF_STEP if pixels == "half" else 2**-23)
    assert (off > 2**-13) == (pixels == "half"), "control: half rounds"


@pytest.mark.parametrize("compression", list(exr_chunks.CHUNK_ROWS))
def test_chunks_of_strips_are_those_of_the_whole(
    tmp_path: Path, compression: exr_chunks.Compression
) -> None:
    light_HWC = srgb_light(picture(700, 40)).astype(np.float16)
    told = {"comments": "été 漢", "framesPerSecond": Fraction(24000, 1001)}
    with (tmp_path / "a.exr").open("wb") as file:
        strips = exr_chunks.cut(light_HWC, exr_chunks.strip_rows(compression))
        exr_chunks.write(file, strips, (700, 40), compression, told)
    window = (np.array([0, 0], np.int32), np.array([39, 699], np.int32))
    kind = {"zips": "ZIPS", "piz": "PIZ"}.get(compression, compression.upper())
    header = {
        **told,
        "type": OpenEXR.scanlineimage,
        "compression": getattr(OpenEXR, f"{kind}_COMPRESSION"),
        "dataWindow": window,
        "displayWindow": window,
    }
    OpenEXR.File(header, {"RGB": light_HWC}).write(str(tmp_path / "b.exr"))
    assert (tmp_path / "a.exr").read_bytes() == (tmp_path / "b.exr").read_bytes()


def test_colours_are_multiplied_by_alpha(tmp_path: Path) -> None:
    alpha = LatentArray("alpha", (1, 1, 1, 64, 64), chunk_rows=64)
    pixels_HWC = np.full((64, 64, 3), 255, np.uint8)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 64), (alpha,))
    values_HW = np.linspace(0, 1, 64, dtype=np.float32)[:, None].repeat(64, axis=1)
    store.save_latents(0, 0, slice(0, 64), values_HW[None, None])
    light_HWC, _ = read_exr(exr.export(Output.of(store.path, tmp_path / "a.exr")))
    alpha_HW = light_HWC[..., 3].astype(np.float32)
    np.testing.assert_allclose(alpha_HW, values_HW, atol=1 / 255)
    np.testing.assert_array_equal(light_HWC[..., 0], light_HWC[..., 3])
    assert (light_HWC[..., 0] < 1).any(), "control"


def test_frames_are_numbered_as_studios_do(tmp_path: Path) -> None:
    pixels_THWC = clip(3, 64, 48)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 48), fps=23.976)
    out = exr_frames.export(Output.of(store.path, tmp_path / "shot.exrs"))
    names = [f"shot.{number}.exr" for number in (1001, 1002, 1003)]
    assert sorted(file.name for file in out.iterdir()) == ["frieze.json", *names]
    for name, pixels_HWC in zip(names, pixels_THWC, strict=True):
        light_HWC, about = read_exr(out / name)
        assert (srgb_values(light_HWC) == pixels_HWC).all()
        assert about["framesPerSecond"] == Fraction(24000, 1001)
    options = exr_frames.Options(first=0, compression="zip")
    exr_frames.export(Output.of(store.path, out, overwrite=True), options)
    assert sorted(file.name for file in out.glob("*.exr"))[0] == "shot.0000.exr"


@pytest.mark.parametrize("module", [exr, exr_frames])
def test_what_is_missing_is_named_before_any_work(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    clipped = {"frames": 3, "fps": 8.0} if module is exr_frames else {}
    with pytest.raises(ExportError, match=r"needs OpenEXR: pip install 'frieze\[exr\]'; or use"):
        module.check(Path("a.exr"), StoreLayout(64, 64, (32, 32), **clipped))  # type: ignore[attr-defined]
