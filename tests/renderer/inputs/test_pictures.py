"""PNG, JPEG, WebP, AVIF and HEIF of every kind are what a second reader has, or what was written.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from contracts.export import picture
from frieze.renderer.errors import MediaError
from frieze.renderer.inputs import faults, media

EXACT = 1e-6
HEIGHT, WIDTH = 23, 37
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]


def read(path: Path, data: bytes | None = None) -> np.ndarray:
    """RGB [H, W, 3] of a file, of the size that `peek` told."""
    if data is not None:
        path.write_bytes(data)
    found_HWC = media.read(path).frames_THWC[0]
    assert media.peek(path) == (1, *found_HWC.shape[:2], None)
    return found_HWC


def on_white(rgba_HWC: np.ndarray) -> np.ndarray:
    return rgba_HWC[..., :3] * rgba_HWC[..., 3:] + 1 - rgba_HWC[..., 3:]


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", _crc(name + content))
    )


def _crc(data: bytes) -> int:
    return zlib.crc32(data)


def png(kind: int, bits: int, samples_HWC: np.ndarray, *others: bytes) -> bytes:
    """A PNG of whole numbers, unfiltered, with other chunks before its pixels."""
    height, width = samples_HWC.shape[:2]
    rows = samples_HWC.reshape(height, -1)
    if bits < 8:
        ones = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
        rows = np.packbits(ones.reshape(height, -1), axis=1)
    lines = b"".join(b"\0" + row.astype(f">u{max(bits, 8) // 8}").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(others) + pixels


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("clear", [False, True])
def test_every_kind_of_png_is_read(tmp_path: Path, kind: int, bits: int, clear: bool) -> None:
    """With a colour, or palette entries, that are transparent, and without."""
    chance = np.random.default_rng(bits)
    samples_HWC = chance.integers(0, 2**bits, (HEIGHT, WIDTH, SAMPLES[kind]))
    unit_HWC, alpha_HWC = samples_HWC / (2**bits - 1), np.ones((HEIGHT, WIDTH, 1))
    others = []
    if kind == 3:
        colours_NC = chance.integers(0, 256, (2**bits, 3), dtype=np.uint8)
        others.append(chunk(b"PLTE", colours_NC.tobytes()))
        unit_HWC = colours_NC[samples_HWC[..., 0]] / 255
    if clear and kind in (0, 2):
        others.append(chunk(b"tRNS", samples_HWC[1, 1].astype(">u2").tobytes()))
        alpha_HWC = (samples_HWC != samples_HWC[1, 1]).any(axis=2, keepdims=True)
    elif clear and kind == 3:
        alphas_N = chance.integers(0, 256, 2**bits, dtype=np.uint8)
        others.append(chunk(b"tRNS", alphas_N.tobytes()))
        alpha_HWC = alphas_N[samples_HWC] / 255
    if kind in (4, 6):
        unit_HWC, alpha_HWC = unit_HWC[..., :-1], unit_HWC[..., -1:]
    rgb_HWC = np.broadcast_to(unit_HWC, (HEIGHT, WIDTH, 3))
    found_HWC = read(tmp_path / "a.png", png(kind, bits, samples_HWC, *others))
    np.testing.assert_allclose(found_HWC, rgb_HWC * alpha_HWC + 1 - alpha_HWC, atol=EXACT)
    # Pillow compares a grey tone of 2 or 4 bits with one of 8.
    if bits != 16 and not (clear and kind == 0 and bits in (2, 4)):
        with Image.open(tmp_path / "a.png") as image:
            expected_HWC = on_white(np.asarray(image.convert("RGBA")) / 255)
        np.testing.assert_allclose(found_HWC, expected_HWC, atol=EXACT)


TEN_MIB = zlib.compress(bytes(10 * 2**20))
PASSED_OVER = {
    "packed text": chunk(b"zTXt", b"Comment\0\0" + TEN_MIB),
    "text of other letters": chunk(b"iTXt", b"Comment\0\1\0\0\0" + TEN_MIB),
    "EXIF in a text": chunk(b"zTXt", b"Raw profile type exif\0\0" + TEN_MIB),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TEN_MIB),
    "damaged": b"\0\0\0\1gAMAx\0\0\0\0",
    "many": b"".join(chunk(b"tEXt", b"a\0" + bytes(2**16)) for _ in range(2000)),
    "animation": chunk(b"acTL", struct.pack(">II", 2, 0)),
}


@pytest.mark.parametrize("name", PASSED_OVER)
def test_what_the_pixels_of_a_png_do_not_need_is_passed_over(tmp_path: Path, name: str) -> None:
    samples_HWC = picture(HEIGHT, WIDTH)
    found_HWC = read(tmp_path / "a.png", png(2, 8, samples_HWC, PASSED_OVER[name]))
    np.testing.assert_allclose(found_HWC, samples_HWC / 255, atol=EXACT)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("where", ["EXIF", "text", "XMP"])
def test_a_png_is_turned_as_exif_or_a_text_says(
    tmp_path: Path, orientation: int, where: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    told = {
        "EXIF": chunk(b"eXIf", exif.tobytes()[6:]),
        "text": chunk(
            b"tEXt",
            b"Raw profile type exif\0\nexif\n%d\n%s\n"
            % (len(exif.tobytes()), exif.tobytes().hex().encode()),
        ),
        "XMP": chunk(
            b"iTXt",
            b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="%d"></a>' % orientation,
        ),
    }
    path = tmp_path / "a.png"
    found_HWC = read(path, png(2, 8, picture(HEIGHT, WIDTH), told[where]))
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        assert (upright.size != image.size) == (orientation == 6)
        np.testing.assert_allclose(found_HWC, np.asarray(upright) / 255, atol=EXACT)


def test_a_png_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    data = bytearray(png(2, 8, picture(HEIGHT, WIDTH)))
    data[data.index(b"IDAT") + 400] ^= 16
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(MediaError, match="cannot be decoded"):
        media.read(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_what_was_written(tmp_path: Path, mode: str, progressive: bool) -> None:
    image = Image.fromarray(np.asarray(Image.fromarray(picture(4, 6)).resize((96, 64))))
    image.convert(mode).save(tmp_path / "a.jpg", quality=98, subsampling=0, progressive=progressive)
    expected_HWC = np.asarray(image.convert(mode).convert("RGB")) / 255
    np.testing.assert_allclose(read(tmp_path / "a.jpg"), expected_HWC, atol=6 / 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 2, 5, 6])
def test_avif_is_what_was_written(tmp_path: Path, mode: str, orientation: int) -> None:
    image = Image.fromarray(picture(64, 48))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(picture(64, 48)[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", exif=exif)
    with Image.open(tmp_path / "a.avif") as saved:
        rgba_HWC = np.asarray(ImageOps.exif_transpose(saved).convert("RGBA")) / 255
    np.testing.assert_allclose(read(tmp_path / "a.avif"), on_white(rgba_HWC), atol=EXACT)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_avif_keeps_all_its_bits(tmp_path: Path, bits: int, samples: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    top = 2**bits - 1
    chance = np.random.default_rng(bits)
    samples_HWC = chance.integers(0, top + 1, (32, 48, samples)).astype(dtype)
    written = samples_HWC[..., 0] if samples == 1 else samples_HWC
    data = imagecodecs.avif_encode(written, level=100, bitspersample=bits)
    unit_HWC = samples_HWC / top
    colours_HWC = np.broadcast_to(unit_HWC[..., :3] if samples > 1 else unit_HWC, (32, 48, 3))
    alpha_HWC = unit_HWC[..., 3:] if samples == 4 else np.ones((32, 48, 1))
    expected_HWC = colours_HWC * alpha_HWC + 1 - alpha_HWC
    found_HWC = read(tmp_path / "a.avif", data)
    np.testing.assert_allclose(found_HWC, expected_HWC, atol=EXACT)
    with Image.open(tmp_path / "a.avif") as seen:  # to 8 bits
        theirs_HWC = on_white(np.asarray(seen.convert("RGBA")) / 255)
    np.testing.assert_allclose(found_HWC, theirs_HWC, atol=1.01 / 255)
    if bits > 8:  # the control: 8 bits are not enough
        assert np.abs(theirs_HWC - expected_HWC).max() > 0.2 / 255


@pytest.mark.parametrize("tile_size", [0, 64])
@pytest.mark.parametrize("orientation", [1, 6])
def test_heif_is_put_together(tmp_path: Path, tile_size: int, orientation: int) -> None:
    """The whole picture, not its first tile, turned as it is shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture(128, 192))
    how = {"quality": -1, "chroma": 444, "tile_size": tile_size}
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", exif=exif.tobytes(), **how)
    expected = image.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else image
    found_HWC = read(tmp_path / "a.heic")
    assert found_HWC.shape[:2] == (expected.height, expected.width)
    np.testing.assert_allclose(found_HWC, np.asarray(expected) / 255, atol=2.01 / 255)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa"])
def test_heif_with_alpha_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.dstack([picture(64, 64), picture(64, 64)[::-1, :, 0]]))
    expected_HWC = on_white(np.asarray(image) / 255)
    made = pillow_heif.from_pillow(image.convert(mode))
    made.save(tmp_path / "a.heic", quality=-1, chroma=444)
    np.testing.assert_allclose(read(tmp_path / "a.heic"), expected_HWC, atol=3.01 / 255)


def test_heif_of_10_bits_reaches_white(tmp_path: Path) -> None:
    samples_HWC = np.zeros((64, 64, 3), np.uint16)
    samples_HWC[32:] = 65535
    made = pillow_heif.from_bytes(mode="RGB;16", size=(64, 64), data=samples_HWC.tobytes())
    made.save(tmp_path / "a.heic", quality=-1, chroma=444)
    np.testing.assert_allclose(read(tmp_path / "a.heic"), samples_HWC / 65535, atol=2 / 1023)


def test_without_pillow_heif_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif.from_pillow(Image.fromarray(picture(64, 64))).save(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for look in (media.read, media.peek):
        with pytest.raises(MediaError, match=r"pip install 'frieze\[heif\]'"):
            look(tmp_path / "a.heic")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif", "tiff"])
def test_what_does_not_fit_into_memory_is_told_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "a"
    Image.fromarray(picture(80, 120)).save(path, kind)
    monkeypatch.setattr(faults, "free_bytes", lambda: 40_000)
    for look in (media.read, media.peek):
        with pytest.raises(MediaError, match=r"120x80 pixels .* GiB are free; up to 3\dx3\d"):
            look(path)
    monkeypatch.setattr(faults, "free_bytes", lambda: 10**9)
    read(path)


def test_a_header_of_a_huge_picture_is_refused(tmp_path: Path) -> None:
    data = bytearray(png(2, 8, picture(HEIGHT, WIDTH)))
    data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    data[29:33] = struct.pack(">I", _crc(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(MediaError, match=r"2147483647x2147483647 pixels which need"):
        media.read(tmp_path / "a.png")


def test_memory_that_runs_out_while_decoding_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    Image.fromarray(picture(HEIGHT, WIDTH)).save(tmp_path / "a.png")
    monkeypatch.setattr(np, "empty", none_left)
    with pytest.raises(MediaError, match="needs more memory than there is"):
        list(media.frames(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
def test_pillows_limit_on_pixels_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    Image.fromarray(picture(HEIGHT, WIDTH)).save(tmp_path / "a", kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    read(tmp_path / "a")
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):  # control
        Image.open(tmp_path / "a").load()
