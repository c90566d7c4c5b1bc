"""Why a picture or clip of a user cannot be read: one line, whatever a library raises."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MediaError, reason
from ..spec.units import GIB
from .host_memory import free_bytes

KNOWN = "PNG, JPEG, WebP, AVIF, HEIF, TIFF, MP4, MOV, MKV, WebM, AVI and GIF work"
# What decoders raise for damaged files.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, BufferError, EOFError, NameError, struct.error, zlib.error),
)
# Of a pixel beside what its decoder holds: a float for each of R, G and B, and as many again
# while its rows are turned, resized or made latents.
PIXEL_BYTES = 2 * 3 * 4


@contextmanager
def decoding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever a library raises for a damaged file becomes one line."""
    try:
        yield
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError(f"{path} needs more memory than there is; a smaller one works") from error
    except DECODER_ERRORS as error:
        raise MediaError(f"{path} cannot be decoded ({reason(error, 200)}); {KNOWN}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of decoders, as of damaged EXIF beside whole pixels, are shown to nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_size(
    path: str | os.PathLike[str], height: int, width: int, decoded: int, frames: int = 1
) -> None:
    """Raises `MediaError` where pixels do not fit into memory as floats.

    `decoded` is how many bytes of each the decoder holds beside them.
    """
    if not (height > 0 and width > 0):
        raise MediaError(f"{path} has {width}x{height} pixels; give a picture or clip that has any")
    free, each = free_bytes(), decoded + PIXEL_BYTES * frames
    needed = height * width * each
    if needed > free:
        side = math.isqrt(free // each)
        times = f", times {frames} frames," if frames > 1 else ""
        raise MediaError(
            f"{path} has {width}x{height} pixels{times} which need {needed / GIB:.1f} GiB to read, "
            f"and {free / GIB:.1f} GiB are free; up to {side}x{side} pixels fit"
        )
