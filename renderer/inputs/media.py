"""Pictures and clips that users hand in, as floats: PNG, JPEG, WebP, AVIF, HEIF, TIFF and clips.

A file is known by its first bytes, not by its name. Colours that a picture states, by an ICC
profile or by numbers, are applied, and refused where they are of high dynamic range; a clip's are
taken as BT.709, without a curve of such range. What is transparent lies on white.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import MediaError
from ..input_files import fault
from . import clips, pictures, tiff
from .colors import Colors
from .faults import KNOWN, check_size, decoding, quiet
from .rgb_floats import turned

STARTS = {
    "png": (b"\x89PNG\r\n\x1a\n",),
    "jpeg": (b"\xff\xd8\xff",),
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "clip": (b"GIF8", b"\x1a\x45\xdf\xa3"),
}
RIFF = {b"WEBP": "webp", b"AVI ": "clip"}
# The first box of an MP4 or QuickTime file (ISO/IEC 14496-12).
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
# Brands of still pictures in such a file (ISO/IEC 23008-12, AVIF 1.1); a sequence is a clip.
AVIF_BRANDS = (b"avif", b"avio")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"miaf")
SEQUENCE_BRANDS = (b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs")
MOST_BRANDS = 4096  # bytes of a file that are looked at


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
    """The frames of a picture or clip together, at most the first `most`. Raises as `frames`."""
    size = peek(path)
    wanted = size.frames if most is None else min(size.frames, most)
    check_size(path, size.height, size.width, 0, wanted)
    # One array made for all of them: a list would need the memory twice.
    frames_THWC = np.empty((wanted, size.height, size.width, 3), np.float32)
    num_read = 0
    for frame_HWC in frames(path, most):
        frames_THWC[num_read] = frame_HWC
        num_read += 1
    return Clip(frames_THWC[:num_read], size.fps)


def frames(
    path: str | os.PathLike[str], most: int | None = None, wanted: Colors = "srgb"
) -> Iterator[np.ndarray]:
    """Each frame upright, RGB [H, W, 3], float32 in [0, 1]; no more than the first `most`.

    A picture comes in the colours that are `wanted`.
    Raises `MediaError` where the file is missing, damaged, of another kind or with tags that are
    not read, holds what is no number, or does not fit into memory, and where a clip or HEIF is
    asked for without the library that decodes it.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "clip":
        yield from clips.frames(path, most)
        return
    with decoding(path), quiet():
        is_tiff = kind == "tiff"
        picture_HWC = tiff.read(path, wanted) if is_tiff else pictures.read(path, kind, wanted)
    yield picture_HWC


def peek(path: str | os.PathLike[str]) -> Size:
    """What `read` would give, from a file's header and a clip's first frame. Raises as `frames`."""
    path = Path(path)
    kind = _kind(path)
    if kind == "clip":
        return Size(*clips.size(path))
    with decoding(path), quiet():
        height, width, orientation = (
            tiff.size(path) if kind == "tiff" else pictures.size(path, kind)
        )
    return Size(1, *turned(height, width, orientation), None)


def alpha(path: str | os.PathLike[str]) -> np.ndarray | None:
    """How opaque a picture is, upright [H, W], float32 in [0, 1]; None where it is all through.

    Of a clip None. Raises as `frames`.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "clip":
        return None
    with decoding(path), quiet():
        alpha_HW = tiff.alpha(path) if kind == "tiff" else pictures.alpha(path, kind)
    return None if alpha_HW is None or alpha_HW.min() >= 1 else alpha_HW


def own_profile(path: str | os.PathLike[str]) -> bytes | None:
    """The ICC profile of what `frames` gives of "own" colours; None: sRGB. Raises as `frames`."""
    path = Path(path)
    kind = _kind(path)
    if kind == "clip":
        return None
    with decoding(path), quiet():
        return tiff.own(path) if kind == "tiff" else pictures.own(path, kind)


def is_deep(path: str | os.PathLike[str]) -> bool:
    """Whether its samples have more than 8 bits, by its header. Raises as `frames`."""
    path = Path(path)
    kind = _kind(path)
    if kind == "clip":
        return clips.is_deep(path)
    with decoding(path), quiet():
        return tiff.is_deep(path) if kind == "tiff" else pictures.is_deep(path, kind)


def _kind(path: Path) -> str:
    """By the first bytes: png, jpeg, webp, avif, heif, tiff or clip."""
    if (why := fault(path)) is not None:
        raise MediaError(f"{why}; give one picture or clip")
    with decoding(path), path.open("rb") as file:
        head = file.read(MOST_BRANDS)
    for kind, starts in STARTS.items():
        if head.startswith(starts):
            return kind
    if head.startswith(b"RIFF") and head[8:12] in RIFF:
        return RIFF[head[8:12]]
    if head[4:8] in BOXES:
        return _kind_of_boxes(head)
    what = "neither a picture nor a clip that Frieze reads"
    raise MediaError(f"{path} is {what if head else f'empty, {what}'}; {KNOWN}")


def _kind_of_boxes(head: bytes) -> str:
    """avif, heif or clip, by the brands in the first box; the major one comes first."""
    size = int.from_bytes(head[:4], "big")
    told = head[8:size] if head[4:8] == b"ftyp" else b""
    major, brands = told[:4], {told[at : at + 4] for at in range(0, len(told), 4)}
    if major in SEQUENCE_BRANDS:
        return "clip"
    if brands.intersection(AVIF_BRANDS):
        return "avif"
    return "heif" if major in HEIF_BRANDS else "clip"
