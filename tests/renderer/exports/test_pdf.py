"""A PDF page as others read it: pypdf its objects, poppler its pixels where it is installed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from PIL import Image
from pypdf.generic import RectangleObject

from contracts.export import RUN, draw, make_store, picture, psnr
from frieze.renderer.codecs.output import Output
from frieze.renderer.color.conversion import Conversion
from frieze.renderer.color.profiles import named, profile
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import pdf
from frieze.renderer.exports.pdf import Options
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from support.colorimetry import PATCHES, press_profile
from support.command_line import frieze, refused
from tolerances import TILE_PSNR

MM = 72 / 25.4
POPPLER = shutil.which("pdftoppm")


def page_of(path: Path) -> tuple[pypdf.PdfReader, pypdf.PageObject]:
    """A strict reader's document and its only page."""
    reader = pypdf.PdfReader(path, strict=True)
    (page,) = reader.pages
    return reader, page


def images(page: pypdf.PageObject) -> list[Any]:
    found = page["/Resources"]["/XObject"]  # type: ignore[index]
    return [found[name] for name in sorted(found, key=lambda name: int(name[3:]))]


def sides(box: RectangleObject) -> list[float]:
    return [float(value) for value in box]


def print_store(path: Path, pixels_HWC: np.ndarray, **told: object) -> Store:
    """A store whose run was asked for a print."""
    layout = StoreLayout(*pixels_HWC.shape[:2], (512, 512))
    run = {**RUN, "spec": {**RUN["spec"], **told}}
    store = Store.create(path, layout, fingerprint="f", run=run)
    draw(store, pixels_HWC, 0, len(pixels_HWC), None)
    store.finish()
    return store


@pytest.mark.parametrize("bits", [8, 16])
def test_the_image_is_whole_and_the_page_has_its_physical_size(tmp_path: Path, bits: int) -> None:
    pixels_HWC = picture(530, 700, bits)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    reader, page = page_of(pdf.export(Output.of(store.path, tmp_path / "sun.pdf", dpi=300)))
    size = [0, 0, 700 / 300 * 72, 530 / 300 * 72]
    assert sides(page.mediabox) == pytest.approx(size, abs=1e-5)
    assert sides(page.trimbox) == sides(page.bleedbox) == sides(page.mediabox)
    assert page.user_unit == 1
    (image,) = images(page)
    raw = np.frombuffer(image.get_data(), ">u2" if bits == 16 else np.uint8)
    np.testing.assert_array_equal(raw.reshape(530, 700, 3), pixels_HWC)
    space, profile = image["/ColorSpace"]
    assert (space, profile.get_object()["/N"]) == ("/ICCBased", 3)
    assert profile.get_object().get_data() == named("srgb").data
    assert "/OutputIntents" not in reader.trailer["/Root"]  # type: ignore[operator]


def test_it_says_what_drew_it_and_what_it_is_called(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 80), (32, 32))
    options = Options(title="été 漢 <&> (1)")
    reader, _ = page_of(pdf.export(Output.of(store.path, tmp_path / "a.pdf"), options))
    assert reader.metadata is not None
    assert reader.metadata.title == "été 漢 <&> (1)"
    assert json.loads(reader.metadata["/frieze"])["fingerprint"] == "f"
    packet = reader.xmp_metadata
    assert packet is not None
    assert packet.dc_title == {"x-default": "été 漢 <&> (1)"}
    assert "trainedAlgorithmicMedia" in packet.stream.get_data().decode()
    assert len(reader.trailer["/ID"]) == 2
    plain, _ = page_of(pdf.export(Output.of(store.path, tmp_path / "sun.pdf")))
    assert plain.metadata is not None
    assert plain.metadata.title == "sun"


def test_bleed_is_cut_off_and_marks_say_where(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(540, 700))
    plain = pdf.export(Output.of(store.path, tmp_path / "a.pdf", dpi=300), Options(bleed="3mm"))
    _, page = page_of(plain)
    width, height = 700 / 300 * 72, 540 / 300 * 72
    edge = 3 * MM
    assert sides(page.mediabox) == pytest.approx([0, 0, width, height], abs=1e-5)
    assert sides(page.bleedbox) == sides(page.mediabox)
    inner = [edge, edge, width - edge, height - edge]
    assert sides(page.trimbox) == pytest.approx(inner, abs=1e-5)
    marked = Options(bleed="3mm", marks=True)
    _, page = page_of(pdf.export(Output.of(store.path, tmp_path / "b.pdf", dpi=300), marked))
    margin = 8 * MM  # marks of 5 mm begin 3 mm from the cut
    trim = [margin, margin, margin + width - 2 * edge, margin + height - 2 * edge]
    assert sides(page.trimbox) == pytest.approx(trim, abs=1e-5)
    assert sides(page.mediabox) == pytest.approx([0, 0, trim[2] + margin, trim[3] + margin])
    text = page.get_contents().get_data().decode()  # type: ignore[union-attr]
    lines = [line.split() for line in text.splitlines() if line.endswith("l S")]
    assert len(lines) == 8
    for x0, y0, _, x1, y1, *_ in lines:
        xs, ys = sorted((float(x0), float(x1))), sorted((float(y0), float(y1)))
        upright = xs[0] == xs[1]
        along, across = (xs, ys) if upright else (ys, xs)
        cuts = (trim[0], trim[2]) if upright else (trim[1], trim[3])
        assert min(abs(along[0] - cut) for cut in cuts) < 1e-5
        assert across[1] <= margin - edge + 1e-5 or across[0] >= sides(page.bleedbox)[2 + upright]


def test_a_print_has_exactly_the_size_that_was_asked_for(tmp_path: Path) -> None:
    # 60 x 40 mm and 2 mm around them: 64 x 44 mm, at least, of 16-pixel multiples.
    pixels_HWC, dpi = picture(528, 768), 768 / 64 * 25.4
    assert 528 / dpi * 25.4 >= 44
    told = {"print": "60x40mm", "bleed": "2mm", "dpi": dpi}
    store = print_store(tmp_path / "a.zarr", pixels_HWC, **told)
    _, page = page_of(pdf.export(Output.of(store.path, tmp_path / "a.pdf")))
    left, bottom, right, top = sides(page.trimbox)
    assert (right - left) / MM == pytest.approx(60, abs=1e-4)
    assert (top - bottom) / MM == pytest.approx(40, abs=1e-4)
    width, height = sides(page.bleedbox)[2:]
    assert (width / MM, height / MM) == pytest.approx((64, 44), abs=1e-4)
    _, other = page_of(pdf.export(Output.of(store.path, tmp_path / "b.pdf", dpi=300)))
    assert sides(other.bleedbox)[2] == pytest.approx(768 / 300 * 72), "told another dpi"


def test_jpeg_strips_overlap_and_are_the_picture(tmp_path: Path) -> None:
    pixels_HWC = picture(1200, 300)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    options = Options(compression="jpeg", quality=90)
    _, page = page_of(pdf.export(Output.of(store.path, tmp_path / "a.pdf", dpi=72), options))
    found = images(page)
    assert [image["/Height"] for image in found] == [528, 528, 176]
    tops = (0, 512, 1024)
    for top, image in zip(tops, found, strict=True):
        (strip_HWC,) = [np.asarray(image.decode_as_image())]
        assert psnr(strip_HWC, pixels_HWC[top : top + len(strip_HWC)]) > TILE_PSNR
    text = page.get_contents().get_data().decode()  # type: ignore[union-attr]
    drawn = [line.split() for line in text.splitlines() if line.endswith("Do Q")]
    for top, words, image in zip(tops, drawn, found, strict=True):
        height, bottom = float(words[4]), float(words[6])
        assert 1200 - bottom - height == pytest.approx(top, abs=0.01)
        assert height == pytest.approx(image["/Height"], abs=0.01)


@pytest.mark.skipif(POPPLER is None, reason="poppler is not installed")
@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_poppler_draws_the_very_pixels_at_the_pictures_own_resolution(
    tmp_path: Path, compression: Any
) -> None:
    pixels_HWC = picture(1040, 530)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    options = Options(compression=compression)
    out = pdf.export(Output.of(store.path, tmp_path / "a.pdf", dpi=240), options)
    subprocess.run([str(POPPLER), "-r", "240", "-png", out, tmp_path / "a"], check=True)
    with Image.open(tmp_path / "a-1.png") as image:
        found_HWC = np.asarray(image.convert("RGB"))
    assert found_HWC.shape == pixels_HWC.shape
    if compression == "deflate":
        np.testing.assert_array_equal(found_HWC, pixels_HWC)
    else:
        assert psnr(found_HWC, pixels_HWC) > TILE_PSNR
        assert psnr(found_HWC[508:532], pixels_HWC[508:532]) > TILE_PSNR, "a seam"
    assert psnr(np.roll(found_HWC, 1, axis=1), pixels_HWC) < 20, "control"


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_a_cmyk_page_has_the_press_s_inks_and_is_meant_for_it(
    tmp_path: Path, compression: Any
) -> None:
    press = tmp_path / "press.icc"
    press.write_bytes(press_profile())
    pixels_HWC = np.repeat(np.repeat(PATCHES[None], 32, 1), 32, 0)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32))
    options = Options(compression=compression, marks=True, quality=95)
    out = pdf.export(Output.of(store.path, tmp_path / "a.pdf", color=str(press)), options)
    reader, page = page_of(out)
    (meant,) = reader.trailer["/Root"]["/OutputIntents"]  # type: ignore[index]
    assert meant["/S"] == "/GTS_PDFX"
    assert meant["/OutputConditionIdentifier"] == "press"
    assert meant["/DestOutputProfile"].get_data() == press.read_bytes()
    (image,) = images(page)
    assert image["/ColorSpace"][1].get_object()["/N"] == 4
    plates = page["/Resources"]["/ColorSpace"]["/CS0"]  # type: ignore[index]
    assert plates[:2] == ["/Separation", "/All"]
    press_of = profile(str(press), ExportError)
    expected_HWC = Conversion(named("srgb"), press_of).rows(pixels_HWC)
    if compression == "deflate":
        found_HWC = np.frombuffer(image.get_data(), np.uint8).reshape(expected_HWC.shape)
        np.testing.assert_array_equal(found_HWC, expected_HWC)
        return
    # A reader turns the numbers of a JPEG of Adobe's around by itself; a page says it by Decode.
    assert list(image["/Decode"]) == [1, 0] * 4
    with Image.open(io.BytesIO(image._data)) as strip:
        found_HWC = np.asarray(strip)
    middles = np.s_[16, 16::32]
    near = np.abs(found_HWC[middles].astype(int) - expected_HWC[middles])
    assert near.max() <= 3


def test_a_page_larger_than_200_inches_has_larger_units(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 600), (64, 64))
    _, page = page_of(pdf.export(Output.of(store.path, tmp_path / "a.pdf", dpi=2)))
    assert page.user_unit == 2
    assert sides(page.mediabox) == pytest.approx([0, 0, 10800, 1152])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--option bleed=3", "is not a length with a unit"),
        ("--option bleed=-3mm", "is not a length with a unit"),
        ("--option bleed=3px", "is not a length with a unit"),
        ("--option bleed=30cm", "bleed 30cm leaves nothing of a picture of"),
        ("--option compression=zip", "it must be deflate or jpeg"),
        ("--option quality=0", "from 1 to 100"),
        ("--option level=10", "from 1 to 9"),
        ("--option marks=perhaps", "marks of pdf = 'perhaps'"),
        ("--option title=a\x07b", "at most 500 letters that print"),
        ("--dpi 0", "dpi 0"),
        ("--dpi nan", "dpi nan"),
    ],
)
def test_what_a_page_cannot_be_is_refused_before_any_work(
    tmp_path: Path, words: str, told: str
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    shown = frieze("export", str(store.path), str(tmp_path / "a.pdf"), *words.split(" ", 2))
    refused(shown, told)
    assert not (tmp_path / "a.pdf").exists()


def test_a_bleed_that_was_not_drawn_is_refused(tmp_path: Path) -> None:
    store = print_store(tmp_path / "a.zarr", picture(400, 600), print="60x40mm", dpi=254.0)
    pdf.export(Output.of(store.path, tmp_path / "a.pdf"))
    with pytest.raises(ExportError, match=r"60 x 40 mm and the print 60 x 40 mm; draw it with"):
        pdf.export(Output.of(store.path, tmp_path / "b.pdf"), Options(bleed="3mm"))
