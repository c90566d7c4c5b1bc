"""What users hand in is read as it is shown: every bit, upright, in the right colours.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from contracts.export import clip, picture
from frieze.renderer.errors import MediaError
from frieze.renderer.inputs import media

EXACT = 1e-6


def one(path: Path) -> np.ndarray:
    """The frame [H, W, 3] of a picture, of the size that `peek` told."""
    read = media.read(path)
    assert read.fps is None
    assert read.frames_THWC.dtype == np.float32
    assert media.peek(path) == (1, *read.frames_THWC.shape[1:3], None)
    assert read.frames_THWC.shape[0] == 1
    return read.frames_THWC[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_pictures_of_8_bits_keep_every_bit(tmp_path: Path, suffix: str) -> None:
    pixels_HWC = picture(70, 45)
    Image.fromarray(pixels_HWC).save(tmp_path / f"a{suffix}", lossless=True)
    found_HWC = one(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found_HWC, pixels_HWC / 255, atol=EXACT)
    assert np.abs(found_HWC[::-1] - pixels_HWC / 255).max() > 0.1, "control"


def test_pictures_of_16_bits_keep_every_bit(tmp_path: Path) -> None:
    pixels_HWC = picture(70, 45, 16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels_HWC))
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(pixels_HWC[..., 0].copy()))
    tifffile.imwrite(tmp_path / "a.tif", pixels_HWC, photometric="rgb")
    planes_CHW = np.ascontiguousarray(np.moveaxis(pixels_HWC, -1, 0))
    tifffile.imwrite(tmp_path / "p.tif", planes_CHW, photometric="rgb", planarconfig="separate")
    for name in ("a.png", "a.tif", "p.tif"):
        np.testing.assert_allclose(one(tmp_path / name), pixels_HWC / 65535, atol=EXACT)
    grey_HWC = np.repeat(pixels_HWC[..., :1], 3, axis=2) / 65535
    np.testing.assert_allclose(one(tmp_path / "grey.png"), grey_HWC, atol=EXACT)
    eight_HWC = (pixels_HWC >> 8) / 255
    assert np.abs(one(tmp_path / "a.png") - eight_HWC).max() > 100 * EXACT, "control"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_grey_palette_and_alpha_become_rgb_on_white(tmp_path: Path, mode: str, suffix: str) -> None:
    alpha = Image.fromarray(picture(40, 30)[..., 2])
    image = Image.fromarray(picture(40, 30))
    if mode == "RGBA":
        image.putalpha(alpha)
    elif mode == "LA":
        image = Image.merge("LA", (image.convert("L"), alpha))
    else:
        image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"a{suffix}")
    rgba_HWC = np.asarray(image.convert("RGBA")) / 255
    expected_HWC = rgba_HWC[..., :3] * rgba_HWC[..., 3:] + 1 - rgba_HWC[..., 3:]
    np.testing.assert_allclose(one(tmp_path / f"a{suffix}"), expected_HWC, atol=EXACT)
    transparent = np.abs(expected_HWC - rgba_HWC[..., :3]).max() > 0.1
    assert transparent == (mode in ("LA", "RGBA")), "control"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(clip(1, 48, 32)[0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=100, subsampling=0)
    with Image.open(path) as saved:
        upright_HWC = np.asarray(ImageOps.exif_transpose(saved).convert("RGB")) / 255
    np.testing.assert_allclose(one(path), upright_HWC, atol=EXACT)


def encode(
    path: Path, pixels_THWC: np.ndarray, codec: str, pix_fmt: str, rate: Fraction
) -> list[np.ndarray]:
    """A clip by PyAV; returns its frames, decoded by FFmpeg's own way to 8-bit RGB."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *pixels_THWC.shape[1:3], pix_fmt
        for number, pixels_HWC in enumerate(pixels_THWC):
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mp4", "libx264", "yuv420p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_clips_are_read_as_players_show_them(
    tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / name
    shown = np.stack(encode(path, clip(9, 48, 64), codec, pix_fmt, Fraction(25)))
    found = media.read(path)
    assert media.peek(path) == (9, 48, 64, 25)
    assert found.fps == 25
    assert found.frames_THWC.shape == (9, 48, 64, 3)
    assert np.abs(found.frames_THWC - shown / 255).mean() < 2 / 255
    assert np.abs(found.frames_THWC[::-1] - shown / 255).mean() > 4 / 255, "control"
    np.testing.assert_array_equal(media.read(path, 2).frames_THWC, found.frames_THWC[:2])
    if pix_fmt == "bgr0":
        np.testing.assert_allclose(found.frames_THWC, clip(9, 48, 64) / 255, atol=EXACT)


def test_white_is_white_at_every_depth(tmp_path: Path) -> None:
    """FFmpeg's own way from 10 bits to 16-bit RGB ends at 0.996."""
    white_THWC = np.full((2, 32, 32, 3), 255, np.uint8)
    for name, pix_fmt in (("a.mp4", "yuv420p"), ("b.mp4", "yuv420p10le")):
        encode(tmp_path / name, white_THWC, "libx264", pix_fmt, Fraction(8))
        np.testing.assert_allclose(media.read(tmp_path / name).frames_THWC, 1, atol=1e-3)


def test_gifs_are_clips(tmp_path: Path) -> None:
    images = [Image.fromarray(pixels).quantize(32) for pixels in clip(4, 40, 30)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    assert media.peek(path) == (4, 40, 30, 10)
    for image, found_HWC in zip(images, media.read(path).frames_THWC, strict=True):
        np.testing.assert_allclose(found_HWC, np.asarray(image.convert("RGB")) / 255, atol=EXACT)


def text(path: Path) -> None:
    path.write_text("a red sun\n" * 9)


def truncated_png(path: Path) -> None:
    Image.fromarray(picture(64, 64)).save(path, "png")
    path.write_bytes(path.read_bytes()[:999])


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, picture(64, 64), photometric="rgb")
    path.write_bytes(path.read_bytes()[:99])


def truncated_clip(path: Path) -> None:
    encode(path.with_suffix(".mp4"), clip(4, 48, 64), "libx264", "yuv420p", Fraction(8))
    path.write_bytes(path.with_suffix(".mp4").read_bytes()[:300])


def sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "there is no file"),
        (folder, "is a folder"),
        (text, "neither a picture nor a clip"),
        (lambda path: path.write_bytes(b""), "neither a picture nor a clip"),
        (truncated_png, "cannot be decoded"),
        (truncated_tiff, "cannot be decoded"),
        (truncated_clip, "cannot be decoded"),
        (sound, "no video stream"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "what.ever"
    make(path)
    with pytest.raises(MediaError, match=why) as caught:
        media.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_without_pyav_pictures_are_read_and_clips_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(tmp_path / "a.mp4", clip(2, 48, 64), "libx264", "yuv420p", Fraction(8))
    Image.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "av", None)
    one(tmp_path / "a.png")
    for look in (media.read, media.peek):
        with pytest.raises(MediaError, match=r"pip install 'frieze\[video\]'"):
            look(tmp_path / "a.mp4")
