"""JPEG from strips: the bytes that libjpeg writes of the whole picture, and what stands beside."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from contracts.export import make_store, picture, psnr
from frieze.renderer.codecs import exif, jpeg_scan
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import jpeg
from frieze.renderer.inputs.metadata import Metadata
from frieze.renderer.store.layout import LatentArray, StoreLayout
from support.peaks import peak_bytes

ALPHA = (LatentArray("alpha", (1, 1, 1, 64, 64), chunk_rows=64),)


def whole(pixels_HWC: np.ndarray, subsampling: str) -> bytes:
    """The scan of a JPEG that Pillow makes at once."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(
        file, "JPEG", quality=95, subsampling=subsampling, restart_marker_rows=1
    )
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(700, 333), (129, 8), (1, 1)])
def test_strips_make_the_scan_of_the_whole(
    tmp_path: Path, size: tuple[int, int], subsampling: jpeg_scan.Subsampling
) -> None:
    pixels_HWC = picture(*size)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64))
    options = jpeg.Options(subsampling=subsampling)
    made = jpeg.export(Output.of(store.path, tmp_path / "a.jpg"), options).read_bytes()
    expected = whole(pixels_HWC, subsampling)
    tables = expected.index(b"\xff\xdb")  # from the first table on it is the same file
    assert made.endswith(expected[tables:])
    assert not made.endswith(
        whole(np.flip(pixels_HWC, 0).copy(), subsampling)[tables:]
    ) or size == (
        1,
        1,
    ), "control"


def test_another_library_reads_pixels_resolution_and_profile(tmp_path: Path) -> None:
    pixels_HWC = picture(300, 200, 16)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64))
    out = jpeg.export(Output.of(store.path, tmp_path / "a.jpeg", dpi=254))
    image = pyvips.Image.new_from_file(str(out))
    assert psnr(image.numpy(), pixels_HWC) > 45
    assert (image.xres, image.yres) == pytest.approx((10, 10))  # pixels a millimetre
    assert image.get("exif-ifd0-Software").startswith("frieze")
    assert b"trainedAlgorithmicMedia" in image.get("xmp-data")
    with Image.open(out) as read:
        comment = read.getexif().get_ifd(exif.EXIF_IFD)[exif.USER_COMMENT]
    assert comment.removeprefix(exif.UNICODE).decode("utf-16-be").startswith("a red sun over")


def test_what_a_picture_carried_stays(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x010F], tags[exif.DESCRIPTION] = "A camera", "a beach"
    tags[exif.EXIF_IFD] = {0x9003: "2020:01:02 03:04:05"}
    profile = b"profile" * 30000  # more than a segment holds
    carried = Metadata(icc=profile, exif=tags.tobytes().removeprefix(b"Exif\0\0"))
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    found = _read_back(jpeg_scan_of(tmp_path, store, carried))
    assert found.info["icc_profile"] == profile
    told = found.getexif()
    assert told[0x010F] == "A camera"
    assert told.get_ifd(exif.EXIF_IFD)[0x9003] == "2020:01:02 03:04:05"
    assert json.loads(told[exif.DESCRIPTION])["picture"]["seed"] == 7


def jpeg_scan_of(folder: Path, store: object, carried: Metadata) -> Path:
    out = folder / "b.jpg"
    tags = exif.exif(store, 300, carried, jpeg_scan.MOST_EXIF)  # type: ignore[arg-type]
    settings = jpeg_scan.JpegSettings(90, "4:4:4", 300, tags, b"<x/>", carried.icc or b"profile")
    with out.open("wb") as file:
        jpeg_scan.write(file, iter([picture(64, 64)]), 64, settings)
    return out


def _read_back(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("carried", [b"MM\0*\0\0\0\x08\xff\xff", b"nonsense", b""])
def test_exif_that_is_damaged_is_left_out(tmp_path: Path, carried: bytes) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    found = _read_back(jpeg_scan_of(tmp_path, store, Metadata(exif=carried)))
    assert found.getexif()[exif.SOFTWARE].startswith("frieze")


def test_exif_that_is_too_long_is_cut_to_what_matters(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[exif.EXIF_IFD] = {0x927C: bytes(70000)}  # a camera's own notes
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    carried = Metadata(exif=tags.tobytes().removeprefix(b"Exif\0\0"))
    assert len(exif.exif(store, 300, carried)) > 70000
    found = exif.exif(store, 300, carried, jpeg_scan.MOST_EXIF)
    assert b"a red sun" in found
    assert len(exif.exif(store, 300, carried, 300)) < 300


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (StoreLayout(65501, 64, (64, 64)), "JPEG ends at 65500 pixels a side, and the picture is"),
        (StoreLayout(64, 64, (64, 64), latents=ALPHA), "JPEG has no alpha, and the picture has"),
        (StoreLayout(64, 64, (64, 64), frames=2, fps=8), "would hold one picture"),
    ],
)
def test_what_jpeg_cannot_hold_is_one_line(layout: StoreLayout, told: str) -> None:
    with pytest.raises(ExportError, match=told) as caught:
        jpeg.check(Path("a.jpg"), layout)
    assert "\n" not in str(caught.value)
    jpeg.check(Path("a.jpg"), StoreLayout(65500, 64, (64, 64)))


def test_alpha_is_put_on_white_when_told(tmp_path: Path) -> None:
    pixels_HWC = picture(64, 64)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64), ALPHA)
    store.save_latents(0, 0, slice(0, 64), np.full((1, 1, 64, 64), 0.5, np.float32))
    with pytest.raises(ExportError, match="--option background=white"):
        jpeg.export(Output.of(store.path, tmp_path / "a.jpg"))
    out = jpeg.export(Output.of(store.path, tmp_path / "a.jpg"), jpeg.Options(background="white"))
    assert psnr(np.asarray(_read_back(out)), pixels_HWC) > 36


@pytest.mark.parametrize(("dpi", "jfif"), [(1.4, 1), (254.4, 254), (100000, 65535)])
def test_resolution_is_whole_in_jfif_and_exact_in_exif(
    tmp_path: Path, dpi: float, jfif: int
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    found = _read_back(jpeg.export(Output.of(store.path, tmp_path / "a.jpg", dpi=dpi)))
    assert found.info["jfif_density"] == (jfif, jfif)
    assert float(found.getexif()[0x011A]) == pytest.approx(dpi)


def test_a_tall_picture_takes_the_memory_of_a_strip(tmp_path: Path) -> None:
    peaks = []
    for height in (512, 2048):
        layout = np.broadcast_to(picture(1, 256), (height, 256, 3))
        store = make_store(tmp_path / f"{height}.zarr", layout, (64, 256))
        out = tmp_path / f"{height}.jpg"
        peaks.append(
            peak_bytes(lambda store=store, out=out: jpeg.export(Output.of(store.path, out)))
        )
    assert peaks[1] < 1.5 * peaks[0]
