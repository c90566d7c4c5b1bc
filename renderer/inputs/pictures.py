"""PNG, JPEG, WebP, AVIF and HEIF as RGB floats, upright, on white.

libpng reads PNG, pillow-heif HEIF, libavif AVIF of more than 8 bits, Pillow the others. Of what
moves the first picture counts. Colours that a profile or numbers state are applied; gamma and gain
maps are not.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..color import code_points
from ..color.profiles import CHANNELS, MOST_BYTES
from ..errors import MediaError
from .colors import WORKS, Colors, conversion, own_profile
from .faults import check_size
from .rgb_floats import by_rows, integers, unit, upright

INSTALL_HEIF = "pip install 'frieze[heif]'"
EXIF_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 8 + 25  # of its signature and IHDR
PNG_DEPTH = 8 + 16  # where IHDR says how many bits a sample has; then of which colours
PNG_GREY = (0, 4)
# What pixels need of a PNG beside its critical chunks; where cameras' and editors' turns stand.
TRANSPARENCY, EXIF, PROFILE, CODE_POINTS = b"tRNS", b"eXIf", b"iCCP", b"cICP"
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


def read(path: Path, kind: str, wanted: Colors = "srgb") -> np.ndarray:
    """The picture as RGB [H, W, 3], float32 in [0, 1], in the colours that are wanted."""
    _, _, orientation = size(path, kind)
    found = _decoded(path, kind, with_profile=wanted != "numbers")
    convert = conversion(found.icc, found.space, path, wanted)

    def rows(rows_HWC: np.ndarray, _: int) -> np.ndarray:
        return integers(
            rows_HWC,
            found.bits,
            colours=CHANNELS[found.space],
            premultiplied=found.premultiplied,
            convert=convert,
        )

    return by_rows(found.pixels_HWC, rows, orientation)


def own(path: Path, kind: str) -> bytes | None:
    """The profile of what `read` gives where the picture's own colours are wanted; None: sRGB."""
    return own_profile(*_profile(path, kind, path.read_bytes()), path)


def alpha(path: Path, kind: str) -> np.ndarray | None:
    """Its alpha upright, [H, W], float32 in [0, 1]; None where it has none."""
    _, _, orientation = size(path, kind)
    found = _decoded(path, kind)
    if found.pixels_HWC.shape[2] == CHANNELS[found.space]:
        return None
    alpha_HW = unit(found.pixels_HWC[..., -1], found.bits)
    return np.ascontiguousarray(upright(alpha_HW, orientation))


class Samples(NamedTuple):
    """Samples as they are stored, [H, W, C]: colours of `space` and alpha, if there is any."""

    pixels_HWC: np.ndarray
    space: str  # RGB, GRAY or CMYK
    bits: int = 8
    icc: bytes | None = None
    premultiplied: bool = False


def _decoded(path: Path, kind: str, *, with_profile: bool = True) -> Samples:
    """Samples and the profile that says what they mean; inks without one are RGB."""
    data = path.read_bytes()
    icc, space = _profile(path, kind, data) if with_profile else (None, "RGB")
    if kind == "png":
        return _png(data, icc, space)
    if kind == "heif":
        return _heif(path, data, icc)
    if kind == "avif" and (bits := _avif_bits(data)) > 8:
        import imagecodecs  # libavif; Pillow keeps 8 bits

        return _samples(imagecodecs.avif_decode(data), bits, icc)
    with _open(data, kind) as image:
        is_inks = space == "CMYK" and icc is not None
        mode = "RGBA" if image.has_transparency_data else {"GRAY": "L"}.get(space, "RGB")
        pixels = np.asarray(image.convert("CMYK" if is_inks else mode))
    return _samples(pixels, 8, icc, space="CMYK" if is_inks else None)


def _samples(
    pixels: np.ndarray,
    bits: int,
    icc: bytes | None,
    *,
    space: str | None = None,
    premultiplied: bool = False,
) -> Samples:
    """Samples of a space, or of what so many of a pixel are."""
    pixels_HWC = pixels if pixels.ndim == 3 else pixels[..., None]
    counted = "GRAY" if pixels_HWC.shape[2] < 3 else "RGB"
    return Samples(pixels_HWC, space or counted, bits, icc, premultiplied)


def _profile(path: Path, kind: str, data: bytes) -> tuple[bytes | None, str]:
    """The ICC profile in a picture, or that of its numbers, and what it is to be of."""
    numbers: tuple[int, int] | None = None
    if kind == "png":
        icc, numbers = _profile_of_png(path, data), _code_points_of_png(data)
        space = "GRAY" if data[PNG_DEPTH + 1] in PNG_GREY else "RGB"
        icc = icc if numbers is None else None  # numbers come first (PNG, 3rd edition, sec. 4.3)
    elif kind == "heif":
        image = _open_heif(path, data)
        icc, space = image.info.get("icc_profile"), "GRAY" if image.mode[0] == "L" else "RGB"
        if (told := image.info.get("nclx_profile")) is not None:
            numbers = told["color_primaries"], told["transfer_characteristics"]
    else:
        with _open(data, kind) as image:
            space = {"L": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB")
            icc = image.info.get("icc_profile")
        numbers = _code_points_of_avif(data) if kind == "avif" else None
    if icc is None and numbers is not None:
        try:
            icc = code_points.icc_of(*numbers, MediaError)
        except MediaError as error:
            raise MediaError(f"{path}: {error}") from None
    return icc, space


def _code_points_of_png(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of its cICP (PNG, 3rd edition, sec. 11.3.2.6)."""
    found = (content for name, content, _ in _chunks(data) if name == CODE_POINTS)
    content = next(found, b"")
    return (content[0], content[1]) if len(content) == 4 else None


def _code_points_of_avif(data: bytes) -> tuple[int, int] | None:
    """The same of the first box of colours that has them."""
    at = data.find(b"colrnclx") + 8
    return struct.unpack_from(">HH", data, at) if 8 <= at <= len(data) - 4 else None


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


def _png(data: bytes, icc: bytes | None, space: str) -> Samples:
    """Samples of a PNG, palette and transparent colour resolved."""
    import imagecodecs  # libpng; Pillow keeps 8 of 16 bits

    kept = [whole for name, _, whole in _chunks(data) if not name[0] & 32 or name == TRANSPARENCY]
    pixels: np.ndarray = imagecodecs.png_decode(PNG_SIGNATURE + b"".join(kept))
    if space == "GRAY" and pixels.shape[2:] in ((3,), (4,)):  # libpng's, of a transparent colour
        pixels = pixels[..., [0, -1]] if pixels.shape[2] == 4 else pixels[..., :1]
    return _samples(pixels, 16 if pixels.dtype == np.uint16 else 8, icc)


def _profile_of_png(path: Path, data: bytes) -> bytes | None:
    """What its iCCP unpacks to (PNG, 3rd edition, sec. 11.3.2.3): a name, a zero, 0, deflated."""
    for name, content, _ in _chunks(data):
        if name == PROFILE:
            packed = content.partition(b"\0")[2][1:]
            try:
                return zlib.decompressobj().decompress(packed, MOST_BYTES)
            except zlib.error:
                raise MediaError(f"{path}: its profile is damaged; {WORKS}") from None
    return None


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


def _heif(path: Path, data: bytes, icc: bytes | None) -> Samples:
    """Samples of the primary picture, its tiles put together."""
    image = _open_heif(path, data)
    pixels, bits = np.asarray(image), int(image.info["bit_depth"])
    if pixels.dtype == np.uint16:  # the bits lie at the top of 16
        pixels = pixels >> (16 - bits)
    return _samples(pixels, bits, icc, premultiplied=bool(image.premultiplied_alpha))
