"""TIFFs are read as their tags say, by the word of a second reader; what is not read is refused.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from contracts.export import picture
from frieze.renderer.errors import MediaError
from frieze.renderer.inputs import media
from support.tiff_files import Value, one, packed, stored, tags_of, tiff

EXACT = 1e-6
GREY_LEVEL = 1.01 / 255
HEIGHT, WIDTH = 40, 30


def read(path: Path, data: bytes | None = None) -> np.ndarray:
    """RGB [H, W, 3] of a file, of the size that `peek` told."""
    if data is not None:
        path.write_bytes(data)
    found_HWC = media.read(path).frames_THWC[0]
    assert media.peek(path) == (1, *found_HWC.shape[:2], None)
    assert 0 <= found_HWC.min() <= found_HWC.max() <= 1
    return found_HWC


def by_pillow(path: Path) -> np.ndarray:
    """RGB on white as Pillow has it, [H, W, 3]."""
    with Image.open(path) as image:
        return on_white(np.asarray(image.convert("RGBA")) / 255)


def on_white(rgba_HWC: np.ndarray) -> np.ndarray:
    return rgba_HWC[..., :3] * rgba_HWC[..., 3:] + 1 - rgba_HWC[..., 3:]


def ramp(bits: int) -> np.ndarray:
    """Whole numbers [H, W] from 0 to the largest of so many bits."""
    unit_HW = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    top = 2**bits - 1
    return np.minimum(np.rint(unit_HW * top), np.nextafter(2.0**bits, 0)).astype(np.uint64)


@pytest.mark.parametrize("bits", [*range(1, 17), 23, 31, 32, 64])
def test_every_depth_reaches_from_black_to_white(tmp_path: Path, bits: int) -> None:
    samples_HW = ramp(bits)
    expected_HW = samples_HW.astype(np.float64) / (2**bits - 1)
    path = tmp_path / "a.tif"
    found_HWC = read(path, one(samples_HW, bits))
    np.testing.assert_allclose(found_HWC, np.dstack([expected_HW] * 3), atol=EXACT)
    assert found_HWC.mean() == pytest.approx(0.5, abs=0.01)
    inverted_HWC = read(path, one(samples_HW, bits, t262=0))
    np.testing.assert_allclose(inverted_HWC, 1 - found_HWC, atol=EXACT)
    samples_HWC = np.dstack([samples_HW, samples_HW[::-1], samples_HW[:, ::-1]])
    rgb_HWC = read(path, one(samples_HWC, bits))
    np.testing.assert_allclose(rgb_HWC, samples_HWC.astype(np.float64) / (2**bits - 1), atol=EXACT)
    assert np.abs(rgb_HWC - found_HWC).max() > 0.5, "control"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_is_what_pillow_has(tmp_path: Path, bits: int, photometric: int) -> None:
    found_HWC = read(tmp_path / "a.tif", one(ramp(bits), bits, t262=photometric))
    np.testing.assert_allclose(found_HWC, by_pillow(tmp_path / "a.tif"), atol=EXACT)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u2", "u4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_tifffile_writes_is_read(tmp_path: Path, dtype: str, order: str) -> None:
    unit_HWC = picture(HEIGHT, WIDTH, 16) / 65535
    scale = 1 if dtype[0] == "f" else np.iinfo(dtype).max
    samples_HWC = (unit_HWC * scale).astype(dtype)
    for name, how in {
        "a": {"bigtiff": True},
        "b": {"planarconfig": "separate"},
        "c": {"tile": (16, 16), "compression": "zlib", "predictor": True},
        "d": {"rowsperstrip": 7, "compression": "lzw"},
    }.items():
        pixels = np.moveaxis(samples_HWC, -1, 0).copy() if name == "b" else samples_HWC
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, pixels, photometric="rgb", byteorder=order, **how)  # type: ignore[arg-type]
        np.testing.assert_allclose(read(file), samples_HWC / scale, atol=EXACT)


@pytest.mark.parametrize(
    ("compression", "args"),
    [
        *((name, {}) for name in ("packbits", "zstd", "lzma", "jpeg2000", "png", "lerc")),
        *(("jpegxl", {"lossless": True}), ("webp", {"lossless": True})),
    ],
)
def test_every_compression_is_read(
    tmp_path: Path, compression: str, args: dict[str, object]
) -> None:
    pixels_HWC, how = picture(HEIGHT, WIDTH), {"compression": compression, "compressionargs": args}
    tifffile.imwrite(tmp_path / "a.tif", pixels_HWC, photometric="rgb", **how)  # type: ignore[arg-type]
    np.testing.assert_allclose(read(tmp_path / "a.tif"), pixels_HWC / 255, atol=EXACT)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpeg_in_a_tiff_is_what_pillow_has(tmp_path: Path, mode: str) -> None:
    image, path = Image.fromarray(picture(48, 64)).convert(mode), tmp_path / "a.tif"
    image.save(path, compression="jpeg", quality=95)
    np.testing.assert_allclose(read(path), by_pillow(path), atol=2 * GREY_LEVEL)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits"])
@pytest.mark.parametrize("order", [1, 2])
def test_fax_is_what_pillow_has(tmp_path: Path, compression: str | None, order: int) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture(HEIGHT, WIDTH)).convert("1")
    image.save(path, compression=compression, tiffinfo={266: order})
    expected_HWC = np.dstack([np.asarray(image, np.float32)] * 3)
    np.testing.assert_array_equal(by_pillow(path), expected_HWC)
    np.testing.assert_array_equal(read(path), expected_HWC)
    assert 0.2 < expected_HWC.mean() < 0.8, "control"


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_fill_order_turns_the_bits_of_bytes(tmp_path: Path, bits: int) -> None:
    turned = imagecodecs.bitorder_encode(stored(ramp(bits), bits))
    data = tiff((tags_of(HEIGHT, WIDTH, bits, t266=2), [turned]))
    found_HWC = read(tmp_path / "a.tif", data)
    np.testing.assert_allclose(found_HWC[..., 0], ramp(bits) / (2**bits - 1), atol=EXACT)


@pytest.mark.parametrize("kind", [0, 1, 2, 999, None])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_what_extra_samples_says(tmp_path: Path, kind: int | None, channels: int) -> None:
    """0 is no alpha, 1 is premultiplied; where nothing is said it is alpha, as Pillow has it."""
    rgba_HWC = np.dstack([picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH)[::-1, :, :1]])
    alpha_HWC = rgba_HWC[..., 3:] / 255
    if kind == 1:
        rgba_HWC[..., :3] = np.rint(rgba_HWC[..., :3] * alpha_HWC)
    stored_HWC = rgba_HWC if channels == 4 else rgba_HWC[..., 2:]
    found_HWC = read(tmp_path / "a.tif", one(stored_HWC, 8, t338=kind))
    colour_HWC = np.broadcast_to(stored_HWC[..., :-1] / 255, found_HWC.shape)
    premultiplied_HWC = colour_HWC if kind == 1 else colour_HWC * alpha_HWC
    expected_HWC = colour_HWC if kind == 0 else premultiplied_HWC + 1 - alpha_HWC
    np.testing.assert_allclose(found_HWC, expected_HWC, atol=EXACT)
    if channels == 4:
        atol = 0.5 if kind == 1 else EXACT  # Pillow divides by small alphas in 8 bits
        np.testing.assert_allclose(found_HWC, by_pillow(tmp_path / "a.tif"), atol=atol)
        assert np.abs(found_HWC - by_pillow(tmp_path / "a.tif")).mean() < GREY_LEVEL
    others_HWC = colour_HWC * alpha_HWC + 1 - alpha_HWC
    assert (np.abs(others_HWC - found_HWC).max() > 0.05) == (kind in (0, 1)), "control"


def test_alpha_is_found_among_other_extra_samples(tmp_path: Path) -> None:
    rgb_HWC, other_HW = picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH)[::-1, :, 0]
    alpha_HW = np.full_like(other_HW, 102)
    samples_HWC = np.dstack([rgb_HWC, other_HW, alpha_HW])
    found_HWC = read(tmp_path / "a.tif", one(samples_HWC, 8, t338=(0, 2)))
    np.testing.assert_allclose(found_HWC, rgb_HWC / 255 * 0.4 + 0.6, atol=EXACT)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("unit", [1, 256, 257])
def test_palettes_are_what_pillow_has(tmp_path: Path, bits: int, unit: int) -> None:
    """Colours of 16 bits; where a writer shifted 8 bits instead of scaling them, 8."""
    entries = np.arange(3 * 2**bits) * 5 % 256 * unit
    tags: dict[str, Any] = {"t262": 3, "t320": [int(value) for value in entries]}
    found_HWC = read(tmp_path / "a.tif", one(ramp(bits), bits, **tags))
    colours_NC = entries.reshape(3, -1).T / (65280 if unit == 256 else 65535)
    expected_HWC = colours_NC[ramp(bits).astype(int)]
    np.testing.assert_allclose(found_HWC, expected_HWC, atol=EXACT)
    np.testing.assert_allclose(found_HWC, by_pillow(tmp_path / "a.tif"), atol=GREY_LEVEL)


def test_cmyk_is_what_pillow_has(tmp_path: Path) -> None:
    image = Image.fromarray(
        np.dstack([picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH)[..., 1]]), "CMYK"
    )
    image.save(tmp_path / "a.tif")
    np.testing.assert_allclose(
        read(tmp_path / "a.tif"), by_pillow(tmp_path / "a.tif"), atol=GREY_LEVEL
    )
    sixteen_HWC = np.asarray(image).astype(np.uint16) * 257
    data = one(sixteen_HWC, 16, t262=5, t332=1, t336=(0, 65535))
    np.testing.assert_allclose(read(tmp_path / "b.tif", data), read(tmp_path / "a.tif"), atol=EXACT)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ycbcr_is_what_pillow_has(tmp_path: Path, compression: str, orientation: int) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture(HEIGHT, WIDTH)).convert("YCbCr")
    image.save(path, compression=compression, tiffinfo={274: orientation})
    with Image.open(path) as saved:
        expected_HWC = np.asarray(ImageOps.exif_transpose(saved).convert("RGB")) / 255
    np.testing.assert_allclose(read(path), expected_HWC, atol=3 * GREY_LEVEL)


def test_chroma_that_is_halved_is_put_back(tmp_path: Path) -> None:
    """Units of 2 x 2 luma samples with one of each chroma (TIFF 6.0, sec. 21), by BT.601."""
    y_HW = np.tile(np.arange(16, 236, 220 // 16, dtype=np.uint8)[:16], (16, 1))
    units = y_HW.reshape(8, 2, 8, 2).swapaxes(1, 2).reshape(8, 8, 4)
    chroma = np.broadcast_to(np.array([90, 200], np.uint8), (8, 8, 2))
    strip = np.concatenate([units, chroma], axis=2).tobytes()
    tags = tags_of(16, 16, 8, t258=(8, 8, 8), t262=6, t277=3, t530=(2, 2))
    found_HWC = read(tmp_path / "a.tif", tiff((tags, [strip])))
    cb, cr = (90 - 128) / 255, (200 - 128) / 255
    y_HW = y_HW / 255
    planes = (y_HW + 1.402 * cr, y_HW - 0.344136 * cb - 0.714136 * cr, y_HW + 1.772 * cb)
    np.testing.assert_allclose(found_HWC, np.clip(np.dstack(planes), 0, 1), atol=2 * GREY_LEVEL)


@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_is_what_little_cms_has(tmp_path: Path, photometric: int) -> None:
    """Colours that sRGB has; Pillow's Lab is CIELab of 8 bits."""
    lab_HWC = picture(HEIGHT, WIDTH)
    lab_HWC[..., 0] = 90 + lab_HWC[..., 0] // 4
    lab_HWC[..., 1:] = (lab_HWC[..., 1:] // 10).astype(np.int8) - 12
    image = Image.fromarray(lab_HWC, "LAB")
    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    shown = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
    assert shown is not None
    offset_HWC = lab_HWC + np.array([0, 128, 128] if photometric == 9 else [0, 0, 0], np.uint8)
    found_HWC = read(tmp_path / "a.tif", one(offset_HWC, 8, t262=photometric))
    # Little CMS rounds more when it is asked for 8 bits.
    error_HWC = np.abs(found_HWC - np.asarray(shown) / 255)
    assert error_HWC.max() < 6 * GREY_LEVEL
    assert error_HWC.mean() < GREY_LEVEL / 2
    wide_HWC = offset_HWC.astype(np.uint16) << 8
    if photometric == 8:
        wide_HWC[..., 0] = np.rint(wide_HWC[..., 0] * (65535 / 65280))
    sixteen_HWC = read(tmp_path / "b.tif", one(wide_HWC, 16, t262=photometric))
    np.testing.assert_allclose(sixteen_HWC, found_HWC, atol=GREY_LEVEL / 10)
    assert np.ptp(found_HWC) > 0.2, "control"


# ---- pages


def test_a_small_copy_or_a_mask_in_front_is_passed_over(tmp_path: Path) -> None:
    whole_HW, small_HW = ramp(8), ramp(8)[::2, ::2]
    small = (tags_of(*small_HW.shape, 8, t254=1), [small_HW.astype(np.uint8).tobytes()])
    whole = (tags_of(HEIGHT, WIDTH, 8), [whole_HW.astype(np.uint8).tobytes()])
    for pages in ([small, whole], [whole, small], [whole]):
        found_HWC = read(tmp_path / "a.tif", tiff(*pages))
        np.testing.assert_allclose(found_HWC[..., 0], whole_HW / 255, atol=EXACT)
    assert read(tmp_path / "b.tif", tiff(small)).shape[:2] == small_HW.shape


def test_a_pyramid_is_read_at_its_full_size(tmp_path: Path) -> None:
    pixels_HWC = picture(64, 48)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels_HWC, subifds=1, photometric="rgb")
        file.write(pixels_HWC[::2, ::2].copy(), subfiletype=1, photometric="rgb")
    np.testing.assert_allclose(read(tmp_path / "a.tif"), pixels_HWC / 255, atol=EXACT)


def test_what_a_mask_hides_is_white(tmp_path: Path) -> None:
    shown_HW = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3 > 0
    picture_page = (tags_of(HEIGHT, WIDTH, 8), [ramp(8).astype(np.uint8).tobytes()])
    mask = (tags_of(HEIGHT, WIDTH, 1, t254=4, t262=4), [packed(shown_HW, 1)])
    found_HWC = read(tmp_path / "a.tif", tiff(picture_page, mask))
    expected_HW = np.where(shown_HW, ramp(8) / 255, 1)
    np.testing.assert_allclose(found_HWC[..., 0], expected_HW, atol=EXACT)
    small = (tags_of(2, 2, 1, t254=4, t262=4), [b"\xff\xff"])
    (tmp_path / "b.tif").write_bytes(tiff(picture_page, small))
    with pytest.raises(MediaError, match="transparency mask of 2x2 pixels"):
        media.peek(tmp_path / "b.tif")


# ---- refusals


def rgb(**more: Value) -> bytes:
    return one(picture(HEIGHT, WIDTH), 8, **more)


REFUSED: dict[str, tuple[bytes, str]] = {
    **{
        f"photometric {value}": (rgb(t262=value), f"PhotometricInterpretation {value}")
        for value in (4, 10, 32803, 32844, 32845, 34892, 7)
    },
    "no photometric": (
        one(np.zeros((4, 4, 5)), 8, t262=None, t338=(0, 0)),
        "PhotometricInterpretation none",
    ),
    **{
        f"sample format {value}": (rgb(t339=[value] * 3), f"SampleFormat {value}")
        for value in (2, 5, 6, 9)
    },
    "formats differ": (rgb(t339=[1, 2, 1]), "cannot be decoded"),
    "bits differ": (rgb(t258=[5, 6, 5]), "BitsPerSample 5, 6, 5"),
    "40 bits": (one(ramp(40), 40), "BitsPerSample 40"),
    "24 bits": (one(ramp(24), 24), "BitsPerSample 24"),
    "8-bit floats": (rgb(t339=[3] * 3), "BitsPerSample 8 of floats"),
    "planar": (rgb(t284=3), "PlanarConfiguration 3"),
    "depth": (rgb(t32997=2), "ImageDepth 2"),
    "compression": (rgb(t259=32809), "Compression 32809"),
    "predictor": (one(ramp(12), 12, t259=5, t317=2), "Predictor 2 with BitsPerSample 12"),
    "one sample of RGB": (one(ramp(8), 8, t262=2), "SamplesPerPixel 1 of RGB"),
    "extra unsaid": (one(np.zeros((4, 4, 6)), 8), "SamplesPerPixel 6, 3 of them extra"),
    "extra missing": (one(np.zeros((4, 4, 5)), 8, t338=2), r"ExtraSamples \(2,\)"),
    "extra unknown": (one(np.zeros((4, 4, 4)), 8, t338=7), r"ExtraSamples \(7,\)"),
    "inverted": (one(np.zeros((4, 4, 2)), 8, t262=0, t338=1), "ExtraSamples 1 with WhiteIsZero"),
    "inks": (one(np.zeros((4, 4, 4)), 8, t262=5, t332=2), "InkSet 2"),
    "dots": (one(np.zeros((4, 4, 4)), 8, t262=5, t336=(10, 200)), r"DotRange \(10, 200\)"),
    "no palette": (one(ramp(4), 4, t262=3), "ColorMap of 0 values"),
    "indexed": (one(ramp(8), 8, t346=1), "Indexed 1"),
    "16-bit YCbCr": (
        one(np.zeros((4, 4, 3)), 16, t262=6, t530=(1, 1)),
        "BitsPerSample 16 of YCbCr",
    ),
    "sparse": (
        tiff((tags_of(4, 4, 8, t278=2, t273=[8, 0], t279=[8, 0]), [bytes(16)])),
        "strip or tile 1 of 2 is not in the file",
    ),
    "cut": (rgb()[:200] + rgb()[-200:], "cannot be decoded"),
    "far": (rgb(t273=2**31), "strip or tile 0 of 1 is not in the file"),
    "few strips": (rgb(t278=2), "names 1 of its 20 strips"),
    "empty": (rgb(t256=0), "0x40 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    """By `peek` too, which decodes nothing: with the tag and its value."""
    data, told = REFUSED[name]
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    for look in (media.peek, media.read):
        with pytest.raises(MediaError, match=told) as caught:
            look(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_tag_that_decides_is_damage_and_another_is_not(tmp_path: Path) -> None:
    data = rgb(t305=(1, 2, 3))
    page = int.from_bytes(data[4:8], "little")
    for code, is_needed in ((258, True), (305, False)):
        place = data.index(code.to_bytes(2, "little"), page)
        damaged = bytearray(data)
        damaged[place + 8 : place + 12] = b"\xff\xff\xff\x7f"
        (tmp_path / "a.tif").write_bytes(damaged)
        if is_needed:
            with pytest.raises(MediaError, match="tag 258 is damaged"):
                media.read(tmp_path / "a.tif")
        else:
            np.testing.assert_allclose(read(tmp_path / "a.tif"), picture(HEIGHT, WIDTH) / 255)


# ---- what is no colour


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 255.0, -3.0])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_that_are_no_colours_are_refused_with_their_place(
    tmp_path: Path, value: float, dtype: str
) -> None:
    pixels_HWC = np.full((600, 4, 3), 0.5, dtype)
    pixels_HWC[301, 2, 1] = value
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels_HWC, photometric="rgb")
    with pytest.raises(MediaError, match=f"sample 1 at row 301, column 2 is {value}"):
        media.read(path)
    pixels_HWC[301, 2, 1] = 1.2  # what sharpening leaves is cut
    tifffile.imwrite(path, pixels_HWC, photometric="rgb")
    assert read(path)[301, 2].tolist() == [0.5, 1, 0.5]


def test_only_samples_that_count_must_be_numbers(tmp_path: Path) -> None:
    pixels_HWC = np.full((8, 8, 4), 0.5, np.float32)
    pixels_HWC[2, 3, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels_HWC, photometric="rgb", extrasamples=[0])
    assert (read(tmp_path / "a.tif") == 0.5).all()
    tifffile.imwrite(tmp_path / "b.tif", pixels_HWC, photometric="rgb", extrasamples=[2])
    with pytest.raises(MediaError, match="row 2, column 3 is nan"):
        media.read(tmp_path / "b.tif")
