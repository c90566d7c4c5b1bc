"""Pictures and clips that users hand in, as floats: PNG, JPEG, WebP, TIFF and what PyAV decodes.

A file is known by its first bytes, not by its name. Colours are taken as sRGB or BT.709 as they
are: colour profiles and HDR curves are not applied. What is transparent lies on white.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import MediaError
from .input_files import fault

KNOWN = "PNG, JPEG, WebP, TIFF, MP4, MOV, MKV, WebM, AVI and GIF work"
INSTALL = "pip install 'frieze[video]'"
# What decoders raise for damaged files.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, RuntimeError, KeyError, IndexError, TypeError),
    *(EOFError, struct.error, zlib.error),
)
EXIF_ORIENTATION = 0x0112
# Weights of red and blue in luma, by the code points of ITU-T H.273, table 4.
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
LUMA = {1: BT709, 5: BT601, 6: BT601, 9: BT2020}
FULL_RANGE = 2
# Larger than this and without a word on it: BT.709, else BT.601, as players have it.
SD_SIZE = (576, 1024)


@dataclass(frozen=True)
class Clip:
    """RGB frames [T, H, W, 3], float32 in [0, 1]; a picture is one frame without `fps`."""

    frames_THWC: np.ndarray
    fps: float | None


class Size(NamedTuple):
    """Frames, rows and columns as `read` gives them, and frames a second (None: a picture)."""

    frames: int
    height: int
    width: int
    fps: float | None


def read(path: str | os.PathLike[str], most: int | None = None) -> Clip:
    """A picture's or a clip's frames, upright; no more than the first `most`.

    Raises `MediaError` where the file is missing, damaged or of another kind, and where a clip is
    asked for without PyAV.
    """
    kind = _kind(Path(path))
    if kind == "clip":
        return _read_clip(Path(path), most)
    with _told(path):
        pixels_HWC, orientation = (_tiff if kind == "tiff" else _picture)(Path(path), kind)
        upright_HWC = _upright(_rgb(pixels_HWC), orientation)
    return Clip(np.ascontiguousarray(upright_HWC)[None], None)


def peek(path: str | os.PathLike[str]) -> Size:
    """What `read` would give, from a file's header and a clip's first frame."""
    kind = _kind(Path(path))
    if kind == "clip":
        with _opened(Path(path)) as (container, stream):
            first_HWC = next(_frames(container, stream, Path(path)))
            rate = stream.average_rate or stream.guessed_rate
        height, width, _ = first_HWC.shape
        return Size(_count(Path(path)), height, width, float(rate) if rate else None)
    with _told(path):
        height, width, orientation = (_tiff_size if kind == "tiff" else _size)(Path(path), kind)
    return Size(1, *((width, height) if orientation > 4 else (height, width)), None)


def _kind(path: Path) -> str:
    """By the first bytes: png, jpeg, webp, tiff or clip."""
    if (why := fault(path)) is not None:
        raise MediaError(f"{why}; give one picture or clip")
    with _told(path), path.open("rb") as file:
        head = file.read(16)
    for kind, starts in {
        "png": (b"\x89PNG\r\n\x1a\n",),
        "jpeg": (b"\xff\xd8\xff",),
        "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "clip": (b"GIF8", b"\x1a\x45\xdf\xa3"),
    }.items():
        if head.startswith(starts):
            return kind
    if head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"AVI "):
        return "webp" if head[8:12] == b"WEBP" else "clip"
    # The first box of an MP4 or QuickTime file.
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "clip"
    raise MediaError(f"{path} is neither a picture nor a clip that Frieze reads; {KNOWN}")


@contextmanager
def _told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever a library raises for a damaged file becomes one line."""
    try:
        yield
    except MediaError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MediaError(f"{path} cannot be decoded ({reason}); {KNOWN}") from error


def _open_picture(path: Path, kind: str) -> Any:
    """Pillow's reader of that kind: without its limit on size, which guards web servers."""
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    readers: dict[str, Any] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    return readers[kind](io.BytesIO(path.read_bytes()))


def _size(path: Path, kind: str) -> tuple[int, int, int]:
    with _open_picture(path, kind) as image:
        return image.height, image.width, image.getexif().get(EXIF_ORIENTATION, 1)


def _picture(path: Path, kind: str) -> tuple[np.ndarray, int]:
    """Integer pixels [H, W, C] and the orientation of a PNG, JPEG or WebP."""
    with _open_picture(path, kind) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        data = path.read_bytes()
        if kind == "png" and data[24] == 16:
            import imagecodecs  # Pillow keeps 8 of the 16 bits

            return imagecodecs.png_decode(data), orientation
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")), (
            orientation
        )


def _tiff_page(file: Any) -> tuple[Any, int]:
    page = file.pages[0]
    tag = page.tags.get(EXIF_ORIENTATION)
    return page, int(tag.value) if tag else 1


def _tiff_size(path: Path, kind: str) -> tuple[int, int, int]:
    import tifffile

    with _tiff_told(path), tifffile.TiffFile(path) as file:
        page, orientation = _tiff_page(file)
        return page.imagelength, page.imagewidth, orientation


def _tiff(path: Path, kind: str) -> tuple[np.ndarray, int]:
    """The first page of a TIFF: grey, palette or RGB, each with alpha or without."""
    import tifffile

    with _tiff_told(path), tifffile.TiffFile(path) as file:
        page, orientation = _tiff_page(file)
        pixels = page.asarray()
        photometric = page.photometric.name
        if page.planarconfig.name == "SEPARATE" and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        if photometric == "PALETTE":
            return np.moveaxis(_palette(page.colormap)[:, pixels], 0, -1), orientation
        if photometric == "MINISWHITE":
            return np.iinfo(pixels.dtype).max - pixels, orientation
        if pixels.dtype == bool:
            return pixels.astype(np.uint8) * 255, orientation
        if photometric not in ("MINISBLACK", "RGB", "YCBCR"):
            raise MediaError(f"{path} holds {photometric} pixels; grey, palette and RGB work")
        return pixels, orientation


def _palette(colours: np.ndarray) -> np.ndarray:
    """16-bit colours; where no low byte is used, the writer shifted 8 bits instead of scaling."""
    return colours if (colours & 255).any() else (colours >> 8).astype(np.uint8)


@contextmanager
def _tiff_told(path: Path) -> Iterator[None]:
    import tifffile

    try:
        yield
    except tifffile.TiffFileError as error:
        raise MediaError(f"{path} cannot be decoded ({error}); {KNOWN}") from error


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 1 to 4] of any depth to RGB [H, W, 3], float32 in [0, 1], on white."""
    if pixels.dtype.kind not in "uf" or pixels.ndim not in (2, 3):
        raise ValueError(f"pixels of {pixels.shape} {pixels.dtype}")
    top = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    unit_HWC = (pixels if pixels.ndim == 3 else pixels[..., None]).astype(np.float32)
    unit_HWC = np.clip(unit_HWC / np.float32(top), 0, 1)
    channels = unit_HWC.shape[2]
    if channels > 4:
        raise ValueError(f"{channels} channels")
    colours = 1 if channels < 3 else 3
    rgb_HWC = np.repeat(unit_HWC[..., :colours], 3 // colours, axis=2)
    if channels in (2, 4):
        alpha_HWC = unit_HWC[..., colours:]
        rgb_HWC = rgb_HWC * alpha_HWC + (1 - alpha_HWC)
    return rgb_HWC


def _upright(pixels_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (CIPA DC-008, tag 274): mirrored, turned, or both."""
    if orientation in (5, 6, 7, 8):
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC


def _read_clip(path: Path, most: int | None) -> Clip:
    """Frames into one array made for all of them: a list would need the memory twice."""
    size = peek(path)
    wanted = size.frames if most is None else min(size.frames, most)
    frames_THWC = np.empty((wanted, size.height, size.width, 3), np.float32)
    num_read = 0
    with _opened(path) as (container, stream):
        for _, frame_HWC in zip(range(wanted), _frames(container, stream, path), strict=False):
            if frame_HWC.shape != frames_THWC.shape[1:]:
                raise MediaError(f"{path} changes its size after {num_read} frames; cut it there")
            frames_THWC[num_read] = frame_HWC
            num_read += 1
    return Clip(frames_THWC[:num_read], size.fps)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its first video stream."""
    try:
        import av
    except ImportError:
        raise MediaError(f"{path} is a clip, which needs PyAV: {INSTALL}") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream; {KNOWN}")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be decoded ({error.strerror}); {KNOWN}") from error


def _count(path: Path) -> int:
    """Frames of a clip: as its header says, else its packets are counted, not decoded."""
    with _opened(path) as (container, stream):
        return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))


def _frames(container: Any, stream: Any, path: Path) -> Iterator[np.ndarray]:
    """Decoded frames [H, W, 3] in [0, 1], turned as the file says they are shown."""
    decoded = 0
    for frame in container.decode(stream):
        decoded += 1
        turned_HWC: np.ndarray = np.rot90(_colours(frame), frame.rotation // 90)
        yield turned_HWC
    if not decoded:
        raise MediaError(f"{path} has no frame that can be decoded; {KNOWN}")


def _colours(frame: Any) -> np.ndarray:
    """A frame of any pixel format as RGB.

    FFmpeg's scaler only brings it to 16 bits a plane, which is exact; its own way from YUV to
    16-bit RGB ends at 65280.
    """
    parts = frame.format.components
    has_alpha = any(part.is_alpha for part in parts)
    if frame.format.is_rgb or frame.format.has_palette:
        return _rgb(frame.reformat(format="rgba").to_ndarray())
    bits, is_full = parts[0].bits, frame.color_range == FULL_RANGE
    scaled = frame.reformat(format="yuva444p16le" if has_alpha else "yuv444p16le")
    y_HW, u_HW, v_HW, *alpha_HW = (_plane(plane, 256) for plane in scaled.planes)
    top = (2**bits - 1) / 2 ** (bits - 8)
    low, luma, chroma = (0, top, top) if is_full else (16, 219, 224)
    small = frame.height <= SD_SIZE[0] and frame.width <= SD_SIZE[1]
    red, blue = LUMA.get(frame.colorspace, BT601 if small else BT709)
    y_HW = (y_HW - low) / luma
    r_HW = y_HW + 2 * (1 - red) * (v_HW - 128) / chroma
    b_HW = y_HW + 2 * (1 - blue) * (u_HW - 128) / chroma
    g_HW = (y_HW - red * r_HW - blue * b_HW) / (1 - red - blue)
    alpha_HW = [plane / top for plane in alpha_HW]
    return _rgb(np.stack([r_HW, g_HW, b_HW, *alpha_HW], axis=-1))


def _plane(plane: Any, unit: int) -> np.ndarray:
    """A plane of 16-bit samples [H, W] as float32 multiples of `unit`."""
    samples = np.frombuffer(plane, "<u2").reshape(plane.height, -1)
    return samples[:, : plane.width].astype(np.float32) / np.float32(unit)
