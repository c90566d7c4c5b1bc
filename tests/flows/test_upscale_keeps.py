"""What is kept of a picture that is made larger: its alpha, depth, profile, EXIF and XMP.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from contracts.export import clip, picture
from frieze.renderer import RenderSpec, render
from frieze.renderer.color.profiles import ADOBE_RGB, named
from frieze.renderer.errors import ExportError
from frieze.renderer.inputs import media, metadata
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.store import Store
from support.colorimetry import D50, delta_e, lab, press_profile, printed, xyz
from support.command_line import frieze
from support.decoders import plain
from tolerances import COLOR_8_BITS, COLOR_INKS

SIDES, SIZE = (40, 56), (80, 112)
PROFILE = named(ADOBE_RGB).data
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" dc:source="a harbour"/>'
    "</rdf:RDF></x:xmpmeta>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that adds nothing."""
    return plain(tmp_path_factory.mktemp("plain"))


def ramp(bits: int) -> np.ndarray:
    """Alpha that goes from nothing to all, and stays there."""
    columns = np.clip(np.arange(SIDES[1]) / 30 - 0.2, 0, 1) * (2**bits - 1)
    return np.broadcast_to(np.round(columns), SIDES).astype(f"uint{bits}")


def larger(alpha_HW: np.ndarray) -> np.ndarray:
    """By torch."""
    x_11HW = torch.from_numpy(alpha_HW.astype(np.float64))[None, None]
    return np.asarray(F.interpolate(x_11HW, SIZE, mode="bicubic")[0, 0].clamp(0, 1))


def made(source: Path, folder: Path, out: Path, **fields: Any) -> RenderSpec:
    size = {"height": SIZE[0], "width": SIZE[1], "out": str(out), "local": True}
    asked = {"upscale": str(source), "decoder": str(folder)} | size | fields
    return RenderSpec.model_validate(asked)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_is_enlarged_by_itself_and_put_back(tmp_path: Path, folder: Path, name: str) -> None:
    """In 16 bits, whichever format it comes in and goes to; exported again too."""
    rgba_HWC = np.dstack([clip(1, *SIDES, bits=16)[0], ramp(16)])
    source, out = tmp_path / name, tmp_path / f"b{name[1:]}"
    if name == "a.png":
        source.write_bytes(imagecodecs.png_encode(rgba_HWC))
    else:
        tifffile.imwrite(source, rgba_HWC, photometric="rgb", extrasamples=["unassalpha"])
    render(made(source, folder, out, bits=16, workers=2))
    source.unlink()
    export(tmp_path / "b.zarr", tmp_path / "c.png", overwrite=False)
    for file in (out, tmp_path / "c.png"):
        is_tiff = file.suffix == ".tif"
        found = tifffile.imread(file) if is_tiff else imagecodecs.png_decode(file.read_bytes())
        assert found.dtype == np.uint16
        expected = larger(ramp(16) / 65535)
        assert np.abs(found[..., 3] / 65535 - expected).max() < 1.1 / 65535
        on_white = Store.open(tmp_path / "b.zarr").read_rows(0, SIZE[0]) / 65535
        alpha_HWC = found[..., 3:] / 65535
        seen = found[..., :3] / 65535 * alpha_HWC + 1 - alpha_HWC
        clear = alpha_HWC[..., 0] > 0.1
        assert np.abs(seen - on_white)[clear].max() < 2 / 65535
        assert np.abs(found[..., :3] / 65535 - on_white)[clear].max() > 0.1, "control"
    if name == "a.tif":
        with tifffile.TiffFile(out) as opened:
            assert [int(kind) for kind in opened.pages.first.extrasamples] == [2]


def test_a_picture_that_is_opaque_throughout_has_none(tmp_path: Path, folder: Path) -> None:
    image = Image.fromarray(picture(*SIDES[::-1])).convert("RGBA").resize(SIDES[::-1])
    image.save(tmp_path / "a.png")
    assert media.alpha(tmp_path / "a.png") is None
    render(made(tmp_path / "a.png", folder, tmp_path / "b.png"))
    assert imagecodecs.png_decode((tmp_path / "b.png").read_bytes()).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    "suffix",
    [".png", ".tif", *(pytest.param(s, marks=pytest.mark.slow) for s in (".jpg", ".webp"))],
)
def test_profile_exif_and_xmp_go_along(tmp_path: Path, folder: Path, suffix: str) -> None:
    """But for the turn, for the pixels are upright by then; XMP says of a model's part too."""
    source = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A Camera"
    exif.get_ifd(0x8769).update({0x9003: "2026:01:02 03:04:05", 0xA002: 56})
    image = Image.fromarray(picture(*SIDES))
    xmp = {} if suffix in (".png", ".tif") else {"xmp": XMP.encode()}
    if suffix == ".tif":
        exif[700] = XMP.encode()
    image.save(source, icc_profile=PROFILE, exif=exif, **xmp)
    words = ["upscale", str(source), "--size", "{}x{}".format(*(2 * side for side in SIDES))]
    with Image.open(source) as opened:
        words[3] = "{}x{}".format(*(2 * side for side in ImageOps.exif_transpose(opened).size))
    words += ["--decoder", str(folder), "--local", "--quiet", "--out", str(tmp_path / "b.png")]
    shown = frieze(*words, "--also", str(tmp_path / "b.tif"))
    assert shown.exit_code == 0, shown.output
    for file in (tmp_path / "b.png", tmp_path / "b.tif"):
        with Image.open(file) as opened:
            opened.load()
            assert opened.info["icc_profile"] == PROFILE
            packet = opened.info["xmp"]
            packet = packet if isinstance(packet, str) else packet.decode()
            assert "/compositeWithTrainedAlgorithmicMedia" in packet
            assert ("a harbour" in packet) == (suffix != ".png")
            assert "tiff:Orientation" not in packet
            assert opened.getexif().get(0x0112, 1) == 1
            if file.suffix == ".png" and suffix != ".tif":
                assert opened.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
                assert 0xA002 not in opened.getexif().get_ifd(0x8769)
                assert opened.getexif().get(0x010F) == "A Camera"
    run = (tmp_path / "b.zarr" / "frieze" / "run.json").read_text()
    assert "carried" in run
    assert "carried" not in Store.open(tmp_path / "b.zarr").provenance, "for readers of the file"


def test_colours_are_the_pictures_own_or_those_asked_for(tmp_path: Path, folder: Path) -> None:
    """Display P3 stays what it is, inks become sRGB; a TIFF in other colours is made in the end."""
    given_HWC = np.full((*SIDES, 3), (170, 100, 90), np.uint8)
    Image.fromarray(given_HWC).save(tmp_path / "a.png", icc_profile=named("display-p3").data)
    (tmp_path / "press.icc").write_bytes(press_profile())
    out, color = tmp_path / "b.tif", str(tmp_path / "press.icc")
    render(made(tmp_path / "a.png", folder, out, color=color, intent="absolute", workers=2))
    (tmp_path / "press.icc").unlink()
    for file in ("again.tif", "own.png", "srgb.png"):
        asked = {"own.png": "display-p3", "srgb.png": "srgb"}.get(file)
        export(tmp_path / "b.zarr", tmp_path / file, overwrite=False, color=asked)
    assert out.read_bytes() == (tmp_path / "again.tif").read_bytes()
    expected = lab(xyz("display-p3", given_HWC[0, 0] / 255))
    inks, own, srgb = (
        np.asarray(Image.open(tmp_path / name))[40, 56] / 255
        for name in ("b.tif", "own.png", "srgb.png")
    )
    assert delta_e(lab(printed(inks)), expected) < COLOR_INKS
    assert np.array_equal(np.rint(own * 255), given_HWC[0, 0]), "the store has its own numbers"
    assert delta_e(lab(xyz("srgb", srgb)), expected) < 2 * COLOR_8_BITS
    assert delta_e(lab(xyz("srgb", own)), expected) > 5, "control"
    cmyk_HWC = np.full((*SIDES, 4), (20, 60, 40, 10), np.uint8)
    tifffile.imwrite(
        tmp_path / "c.tif", cmyk_HWC, photometric="separated", iccprofile=press_profile()
    )
    render(made(tmp_path / "c.tif", folder, tmp_path / "d.tif"))
    with Image.open(tmp_path / "d.tif") as opened:
        assert opened.info["icc_profile"] == named("srgb").data
        found = np.asarray(opened)[40, 56] / 255
    black = printed(np.ones(4))[1]
    measured = (printed(cmyk_HWC[0, 0] / 255) - D50 * black) / (1 - black)
    assert delta_e(lab(xyz("srgb", found)), lab(measured)) < COLOR_INKS


def test_colours_that_cannot_be_are_refused_before_any_work(tmp_path: Path, folder: Path) -> None:
    source, press = tmp_path / "a.png", tmp_path / "press.icc"
    source.write_bytes(imagecodecs.png_encode(np.dstack([clip(1, *SIDES)[0], ramp(8)])))
    press.write_bytes(press_profile())
    for name, color, fault in (
        ("b.tif", str(press), "CMYK with alpha"),
        ("b.png", str(press), "CMYK"),
        ("b.tif", "p3", "no colour space 'p3'"),
    ):
        with pytest.raises(ExportError, match=fault) as caught:
            render(made(source, folder, tmp_path / name, color=color))
        assert "\n" not in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "press.icc"]


def test_what_is_damaged_counts_as_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert metadata.read(tmp_path / "a.png") == metadata.NOTHING
    assert metadata.Metadata.from_json({"icc": "!", "exif": 3}) == metadata.NOTHING
    assert metadata.Metadata.from_json("x") == metadata.NOTHING
