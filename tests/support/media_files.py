"""Whole small pictures and clips of every kind that is read, and what becomes of damaged ones."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from contracts.export import clip, picture
from support.shared import kept
from support.tiff_files import one, packed, tags_of, tiff

INTERESTING = (0, 1, 127, 128, 254, 255)


def by_pillow(kind: str, mode: str = "RGB", **how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(24, 32)).convert(mode).save(file, kind, **how)
    return file.getvalue()


def by_tifffile(**how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, picture(24, 32), photometric="rgb", **how)  # type: ignore[arg-type]
    return file.getvalue()


def heif() -> bytes:
    file = io.BytesIO()
    made = pillow_heif.from_pillow(Image.fromarray(picture(64, 96)))
    made.save(file, quality=50, tile_size=32)
    return file.getvalue()


def by_pyav(container: str, codec: str, pix_fmt: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as opened:
        opened.metadata["comment"] = "a red sun"
        stream = opened.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        for number, pixels_HWC in enumerate(clip(4, 48, 64)):
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
            frame.pts = number
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())
    return file.getvalue()


def gif() -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(pixels).quantize(16) for pixels in clip(3, 24, 32)]
    images[0].save(file, "gif", save_all=True, append_images=images[1:])
    return file.getvalue()


def exif() -> Image.Exif:
    told = Image.Exif()
    told[0x0112] = 6
    return told


WHOLE: dict[str, Callable[[], bytes]] = {
    "png": lambda: by_pillow("png", exif=exif()),
    "palette.png": lambda: by_pillow("png", "P"),
    "jpeg": lambda: by_pillow("jpeg", exif=exif()),
    "cmyk.jpeg": lambda: by_pillow("jpeg", "CMYK", progressive=True),
    "webp": lambda: by_pillow("webp", exif=exif()),
    "avif": lambda: by_pillow("avif", exif=exif()),
    "heif": heif,
    "grey.tif": lambda: one(picture(24, 32)[..., 0], 12),
    "palette.tif": lambda: by_pillow("tiff", "P"),
    "fax.tif": lambda: by_pillow("tiff", "1", compression="group4"),
    "ycbcr.tif": lambda: by_pillow("tiff", "YCbCr", compression="tiff_lzw"),
    "jpeg.tif": lambda: by_pillow("tiff", compression="jpeg"),
    "lab.tif": lambda: by_pillow("tiff", "LAB"),
    "tiles.tif": lambda: by_tifffile(tile=(16, 16), compression="zlib", predictor=True),
    "big.tif": lambda: by_tifffile(bigtiff=True, compression="lzw", rowsperstrip=5),
    "mask.tif": lambda: tiff(
        (tags_of(24, 32, 8), [picture(24, 32)[..., 0].tobytes()]),
        (tags_of(24, 32, 1, t254=4, t262=4), [packed(np.ones((24, 32)), 1)]),
    ),
    "mp4": lambda: by_pyav("mp4", "libx264", "yuv420p"),
    "mkv": lambda: by_pyav("matroska", "ffv1", "bgr0"),
    "avi": lambda: by_pyav("avi", "mjpeg", "yuvj420p"),
    "gif": gif,
}
whole = kept(lambda name: WHOLE[name]())


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same file with one to a few faults of one kind."""
    file, kind = bytearray(data), chance.randrange(5)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(file))
        # Headers and tags, which decide most, lie at both ends.
        at = chance.choice((at, at % 64, len(file) - 1 - at % min(256, len(file))))
        if kind == 0:
            file[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            file[at] = chance.choice(INTERESTING)
        elif kind == 2:
            file[at : at + 4] = chance.randbytes(4)
        elif kind == 3:
            del file[at : at + chance.choice((1, 2, 4, 64))]
        else:
            file[at:at] = file[at : at + chance.choice((1, 4, 64))]
        if not file:
            break
    return bytes(file[: chance.randrange(len(file) + 1)] if chance.random() < 0.1 else file)
