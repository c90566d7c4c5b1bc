"""Delivered files in other colours, opened by programs that did not write them.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import OpenImageIO as oiio
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from contracts.export import RUN, clip, draw, make_store, picture
from frieze.renderer.color.profiles import NAMED, named
from frieze.renderer.errors import ExportError
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.provenance import color_of
from frieze.renderer.store.store import Store
from support.colorimetry import PATCHES, delta_e, inks, lab, press_profile, printed, xyz
from support.command_line import frieze
from tolerances import (
    AMPLE,
    COLOR_8_BITS,
    COLOR_16_BITS,
    COLOR_ELSEWHERE,
    COLOR_INKS,
    COLOR_UNCONVERTED,
)

SIDE = 32  # of a patch


def chart(bits: int) -> np.ndarray:
    """Patches side by side, in two rows."""
    numbers = np.vstack([PATCHES, PATCHES[:1]]).reshape(2, -1, 3)
    scaled = np.rint(numbers / 255 * (2**bits - 1)).astype(f"uint{bits}")
    return np.repeat(np.repeat(scaled, SIDE, axis=0), SIDE, axis=1)


@pytest.fixture
def press(tmp_path: Path) -> Path:
    """A print shop's profile."""
    (tmp_path / "press.icc").write_bytes(press_profile())
    return tmp_path / "press.icc"


def by_oiio(path: Path) -> tuple[np.ndarray, Any]:
    """Samples as they are stored and OpenImageIO's description of the file."""
    opened = oiio.ImageInput.open(str(path))
    assert opened is not None, oiio.geterror()
    spec = opened.spec()
    kind = "uint8" if spec.format.basesize() == 1 else "uint16"
    pixels = opened.read_image(0, 0, 0, spec.nchannels, kind)
    opened.close()
    return np.asarray(pixels), spec


def told_by_exiftool(path: Path) -> dict[str, Any]:
    """What exiftool finds in it; nothing where there is none."""
    if shutil.which("exiftool") is None:
        return {}
    shown = subprocess.run(["exiftool", "-json", str(path)], capture_output=True, check=True)
    (found,) = json.loads(shown.stdout)
    return dict(found)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("name", NAMED)
def test_rgb_as_other_programs_see_it(tmp_path: Path, name: str, suffix: str, bits: int) -> None:
    given = chart(bits)
    store, top = make_store(tmp_path / "a.zarr", given), 2**bits - 1
    out = tmp_path / f"a{suffix}"
    export(store.path, out, overwrite=False, dpi=254.0, color=name)
    found, spec = by_oiio(out)
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    expected = lab(xyz("srgb", given / top))
    most = COLOR_8_BITS if bits == 8 else COLOR_16_BITS
    assert delta_e(lab(xyz(name, found / top)), expected).max() < most
    if name != "srgb":
        assert delta_e(lab(xyz(name, given / top)), expected).max() > COLOR_UNCONVERTED, "control"
    assert bytes(spec["ICCProfile"]) == named(name).data
    assert spec["XResolution"] == pytest.approx(254, abs=0.02) or (
        spec["XResolution"] / 100 * 2.54 == pytest.approx(254, abs=0.02)
    )
    vips = pyvips.Image.new_from_file(str(out))
    assert vips.get("icc-profile-data") == named(name).data
    assert vips.xres == pytest.approx(10, abs=0.001), "dots a millimetre"
    assert vips.format == ("uchar" if bits == 8 else "ushort")
    seen = vips.icc_transform("srgb", embedded=True, intent="relative", depth=8).numpy()
    assert delta_e(lab(xyz("srgb", seen / 255)), expected).max() < COLOR_ELSEWHERE
    if bits == 8:
        with Image.open(out) as opened:
            opened.load()
            described = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
            assert ImageCms.getProfileDescription(described).strip() == NAMED[name].name
            assert opened.info["dpi"][0] == pytest.approx(254, abs=0.02)
    told = told_by_exiftool(out)
    assert told.get("ProfileDescription", NAMED[name].name) == NAMED[name].name
    assert "Warning" not in told


@pytest.mark.parametrize("bits", [8, 16])
def test_inks_as_other_programs_see_them(tmp_path: Path, press: Path, bits: int) -> None:
    """TIFF 6.0, section 16: separated, InkSet CMYK, four samples, the printer's profile."""
    given, top = chart(bits), 2**bits - 1
    store, out = make_store(tmp_path / "a.zarr", given), tmp_path / "a.tif"
    export(store.path, out, overwrite=False, color=str(press), intent="absolute")
    with tifffile.TiffFile(out) as file:
        page = file.pages.first
        found = page.asarray()
        assert (page.tags.valueof(262), page.tags.valueof(332), page.samplesperpixel) == (5, 1, 4)
        assert page.tags.valueof(34675) == press_profile()
        assert page.extrasamples == ()
        assert [level.photometric.name for level in page.pages] == ["SEPARATED"] * len(page.pages)
        assert {level.samplesperpixel for level in page.pages} <= {4}
    expected = xyz("srgb", given / top)
    can = delta_e(lab(printed(inks(expected))), lab(expected)) < 0.01
    assert delta_e(lab(printed(found / top)), lab(expected))[can].max() < COLOR_INKS
    naive = np.dstack([1 - given / top, np.zeros(given.shape[:2])])
    assert delta_e(lab(printed(naive)), lab(expected))[can].max() > COLOR_UNCONVERTED, "control"
    vips = pyvips.Image.new_from_file(str(out))
    assert (vips.bands, vips.interpretation) == (4, "cmyk")
    assert vips.get("icc-profile-data") == press_profile()
    seen = vips.icc_transform("srgb", embedded=True, intent="absolute", depth=8).numpy()
    far = delta_e(lab(xyz("srgb", seen / 255)), lab(expected))[can]
    assert far.max() < COLOR_INKS + COLOR_8_BITS
    if bits == 8:
        with Image.open(out) as opened:
            assert opened.mode == "CMYK"
            assert np.array_equal(np.asarray(opened), found)
    told = told_by_exiftool(out)
    assert told.get("PhotometricInterpretation", "CMYK") == "CMYK"
    assert told.get("InkSet", "CMYK") == "CMYK"


def test_frames_are_converted_too(tmp_path: Path, press: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 40, 56), (32, 32))
    for name, samples in (("display-p3", 3), (str(press), 4)):
        folder = tmp_path / f"{samples}.frames"
        export(store.path, folder, overwrite=False, color=name)
        conversion = color_of(store, folder, name)
        for index, (_, rows_HWC) in enumerate(store.frames_in_order()):
            with tifffile.TiffFile(folder / f"{index:06d}.tif") as file:
                assert np.array_equal(file.asarray(), conversion.rows(rows_HWC))
                assert file.pages.first.tags.valueof(34675) == conversion.icc
                assert not np.array_equal(file.asarray()[..., :3], rows_HWC), "control"


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_bytes_do_not_depend_on_who_is_at_work(tmp_path: Path, suffix: str) -> None:
    """Blocks, threads, a store that is drawn meanwhile: one file."""
    pixels = picture(160, 96)
    made = [make_store(tmp_path / f"{side}.zarr", pixels, (side, side)) for side in (32, 160)]
    files = []
    for store in made:
        for workers in (1, 3):
            out = tmp_path / f"{store.path.stem}-{workers}{suffix}"
            options = {"workers": workers}
            export(store.path, out, overwrite=False, color="adobe-rgb", options=options)
            files.append(out.read_bytes())
    half = make_store(tmp_path / "half.zarr", pixels, (32, 32), finish=False)
    out = tmp_path / f"half{suffix}"
    told = {"overwrite": False, "color": "adobe-rgb", "follow": True}
    thread = threading.Thread(target=lambda: export(half.path, out, **told), daemon=True)
    thread.start()
    for row in (64, 0, 32, 128, 96):
        time.sleep(0.02)
        draw(half, pixels, row, 32, None)
    half.finish()
    thread.join(AMPLE)
    files.append(out.read_bytes())
    if suffix == ".png":  # whose chunks are cut by threads, and no pixel with them
        files = [imagecodecs.png_decode(data).tobytes() for data in files]
    assert len(set(files)) == 1
    plain = tmp_path / f"plain{suffix}"
    export(half.path, plain, overwrite=False)
    given = picture(160, 96)
    assert np.abs(by_oiio(plain)[0].astype(int) - given).max() == 0
    assert np.abs(by_oiio(out)[0].astype(int) - given).max() > 20, "control"


def test_a_store_keeps_the_profile_that_it_was_begun_with(tmp_path: Path, press: Path) -> None:
    """Its file may change or be gone; another name of colours is another wish."""
    told = base64.b64encode(zlib.compress(press_profile())).decode()
    spec = {**RUN["spec"], "color": str(press), "intent": "perceptual"}
    store = make_store(tmp_path / "a.zarr", chart(8))
    run = {**RUN, "spec": spec, "profile": told}
    begun = Store.create(tmp_path / "b.zarr", store.layout, fingerprint="f", run=run)
    draw(begun, chart(8), 0, chart(8).shape[0], None)
    begun.finish()
    options = {"overwrite": False, "color": str(press), "intent": "perceptual"}
    export(store.path, tmp_path / "a.tif", **options)
    press.unlink()
    export(begun.path, tmp_path / "b.tif", overwrite=False)
    export(begun.path, tmp_path / "c.tif", overwrite=False, color=str(press))
    found = [tifffile.imread(tmp_path / f"{name}.tif") for name in "abc"]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    export(begun.path, tmp_path / "d.png", overwrite=False, color="srgb")
    assert b"profile" not in (tmp_path / "b.tif").read_bytes()[-4096:]
    assert told not in json.dumps(dict(begun.provenance))
    with pytest.raises(ExportError, match="no CMYK"):
        export(begun.path, tmp_path / "e.png", overwrite=False)
    lost = Store.create(
        tmp_path / "c.zarr", store.layout, fingerprint="f", run={**RUN, "spec": spec}
    )
    with pytest.raises(ExportError, match="does not hold it; give one with --color"):
        color_of(lost, tmp_path / "f.tif")


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, press: Path) -> None:
    store = make_store(tmp_path / "a.zarr", chart(8))
    moving = make_store(tmp_path / "b.zarr", clip(2, 32, 32), (32, 32))
    (tmp_path / "text.icc").write_text("hello")
    (tmp_path / "link.icc").write_bytes(press_profile(device_class=b"link"))
    (tmp_path / "lab.icc").write_bytes(press_profile(device_class=b"spac", space=b"Lab "))
    before = sorted(file.name for file in tmp_path.iterdir())
    wrong = (
        (store, "x.png", ("--color", str(press)), "x.png: .png files hold no CMYK"),
        (store, "x.zarr", ("--color", "display-p3"), "hold no colours but the store's own"),
        (moving, "x.mp4", ("--color", "display-p3"), "hold no colours but the store's own"),
        (store, "x.tif", ("--color", str(tmp_path / "text.icc")), "is no ICC profile"),
        (store, "x.tif", ("--color", str(tmp_path / "link.icc")), "of class device link"),
        (store, "x.tif", ("--color", str(tmp_path / "lab.icc")), "'Lab' (colour space)"),
        (store, "x.tif", ("--color", str(tmp_path / "gone.icc")), "there is no file"),
        (store, "x.tif", ("--color", "prophoto"), "no colour space 'prophoto'"),
        (store, "x.tif", ("--color", ""), "no colour space ''"),
        (store, "x.tif", ("--color", str(tmp_path)), "is a folder"),
        (store, "x.tif", ("--intent", "vivid"), "intent 'vivid' does not work"),
    )
    for source, name, words, fault in wrong:
        told = frieze("export", str(source.path), str(tmp_path / name), *words)
        assert told.exit_code != 0, words
        assert fault in told.stderr, (words, told.stderr)
        assert told.stderr.strip().count("\n") == 0, told.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == before
