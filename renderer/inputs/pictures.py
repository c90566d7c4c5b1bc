"""PNG, JPEG, WebP, AVIF and HEIF as RGB floats, upright, on white.

libpng reads PNG, pillow-heif HEIF, libavif AVIF of more than 8 bits, Pillow the others. Of what
moves the first picture counts. Colour profiles, gamma and gain maps are not applied.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MediaError
from .faults import check_size
from .rgb_floats import by_rows, integers, unit, upright

INSTALL_HEIF = "pip install 'frieze[heif]'"
EXIF_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 8 + 25  # of its signature and IHDR
PNG_DEPTH = 8 + 16  # where IHDR says how many bits a sample has
# What pixels need of a PNG beside its critical chunks; where cameras' and editors' turns stand.
TRANSPARENCY, EXIF = b"tRNS", b"eXIf"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
TURNS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
DECODED_BYTES = 8  # of a pixel, as decoders hold it


def size(path: Path, kind: str) -> tuple[int, int, int]:
    """Rows, columns and EXIF orientation of the pixels that `read` would decode."""
    data = path.read_bytes()
    if kind == "png":
        width, height = struct.unpack_from(">II", data, 16)
        found = (height, width, _png_orientation(data))
    elif kind == "heif":
        image = _open_heif(path, data)
        found = (image.size[1], image.size[0], 1)  # libheif turns it
    else:
        with _open(data, kind) as opened:
            turn = opened.getexif().get(EXIF_ORIENTATION, 1)
            found = (opened.height, opened.width, turn)
    check_size(path, *found[:2], DECODED_BYTES)
    return found


def is_deep(path: Path, kind: str) -> bool:
    """Whether its samples have more than 8 bits."""
    data = path.read_bytes()
    if kind == "png":
        return data[PNG_DEPTH] > 8
    if kind == "heif":
        return int(_open_heif(path, data).info["bit_depth"]) > 8
    return kind == "avif" and _avif_bits(data) > 8


def read(path: Path, kind: str) -> np.ndarray:
    """The picture as RGB [H, W, 3], float32 in [0, 1]."""
    _, _, orientation = size(path, kind)
    pixels_HWC, bits, premultiplied = _decoded(path, kind)

    def rows(rows_HWC: np.ndarray, _: int) -> np.ndarray:
        return integers(rows_HWC, bits, premultiplied=premultiplied)

    return by_rows(pixels_HWC, rows, orientation)


def alpha(path: Path, kind: str) -> np.ndarray | None:
    """Its alpha upright, [H, W], float32 in [0, 1]; None where it has none."""
    _, _, orientation = size(path, kind)
    pixels_HWC, bits, _ = _decoded(path, kind)
    if pixels_HWC.shape[2] not in (2, 4):
        return None
    return np.ascontiguousarray(upright(unit(pixels_HWC[..., -1], bits), orientation))


def _decoded(path: Path, kind: str) -> tuple[np.ndarray, int, bool]:
    """Samples as they are stored, [H, W, C], their bits, and whether alpha is multiplied in."""
    bits, premultiplied = 8, False
    data = path.read_bytes()
    if kind == "png":
        pixels, bits = _png(data)
    elif kind == "heif":
        pixels, bits, premultiplied = _heif(path, data)
    elif kind == "avif" and (bits := _avif_bits(data)) > 8:
        import imagecodecs  # libavif; Pillow keeps 8 bits

        pixels = imagecodecs.avif_decode(data)
    else:
        with _open(data, kind) as image:
            mode = "RGBA" if image.has_transparency_data else "RGB"
            pixels = np.asarray(image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None], bits, premultiplied


def _open(data: bytes, kind: str) -> Any:
    """Pillow's reader of that kind: without its limit on size, which guards web servers."""
    from PIL import AvifImagePlugin, Image, JpegImagePlugin, WebPImagePlugin

    readers: dict[str, Any] = {
        "avif": AvifImagePlugin.AvifImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return readers[kind](io.BytesIO(data))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _png(data: bytes) -> tuple[np.ndarray, int]:
    """Pixels of a PNG and their bits, palette and transparent colour resolved."""
    import imagecodecs  # libpng; Pillow keeps 8 of 16 bits

    kept = [whole for name, _, whole in _chunks(data) if not name[0] & 32 or name == TRANSPARENCY]
    pixels: np.ndarray = imagecodecs.png_decode(PNG_SIGNATURE + b"".join(kept))
    return pixels, 16 if pixels.dtype == np.uint16 else 8


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(name, content, all its bytes) of each chunk of a PNG (PNG, 3rd edition, sec. 5.3)."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at + 8 : at + 8 + length], data[at : at + 12 + length]
        at += 12 + length


def _png_orientation(data: bytes) -> int:
    """As its EXIF tells; else as EXIF or XMP in a text does, where editors wrote it before."""
    exif, texts = [], []
    for name, content, whole in _chunks(data):
        if name == EXIF:
            exif.append(whole)
        elif name in TEXTS and content.startswith(TURNS):
            texts.append(whole)
    if exif:
        return _turn(exif[0])
    for text in texts:
        with suppress(ValueError):  # more of it, unpacked, than Pillow's limit
            return _turn(text)
    return 1


def _turn(chunk: bytes) -> int:
    """The orientation that a chunk tells, by Pillow, for which it goes with a single pixel."""
    from PIL import Image, PngImagePlugin

    pixel = io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, "png")
    header, rest = pixel.getvalue()[:HEADER_END], pixel.getvalue()[HEADER_END:]
    with PngImagePlugin.PngImageFile(io.BytesIO(header + chunk + rest)) as image:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))


def _avif_bits(data: bytes) -> int:
    """Bits of an AVIF's samples, as its first configuration says (AV1-ISOBMFF, sec. 2.3.3)."""
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _open_heif(path: Path, data: bytes) -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise MediaError(
            f"{path} is HEIF, which needs pillow-heif: {INSTALL_HEIF}; PNG, JPEG and AVIF do not"
        ) from None
    return pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)


def _heif(path: Path, data: bytes) -> tuple[np.ndarray, int, bool]:
    """Pixels of the primary picture, its tiles put together; bits; whether premultiplied."""
    image = _open_heif(path, data)
    pixels, bits = np.asarray(image), int(image.info["bit_depth"])
    if pixels.dtype == np.uint16:  # the bits lie at the top of 16
        pixels = pixels >> (16 - bits)
    return pixels, bits, bool(image.premultiplied_alpha)
