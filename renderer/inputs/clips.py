"""Clips that users hand in, frame by frame, as RGB floats: what PyAV decodes.

Colours are BT.709, or as the clip says; HDR curves are not applied.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MediaError
from .faults import KNOWN, check_size, decoding
from .rgb_floats import integers, on_white, upright

INSTALL = "pip install 'frieze[video]'"
# Weights of red and blue in luma, by the code points of ITU-T H.273, table 4.
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
LUMA = {1: BT709, 5: BT601, 6: BT601, 9: BT2020}
FULL_RANGE = 2
# Larger than this and without a word on it: BT.709, else BT.601, as players have it.
SD_SIZE = (576, 1024)
# How frames are shown, as EXIF orientations: the signs of a, b, c and d of a display matrix, which
# brings column x and row y to columns a x + c y and rows b x + d y.
TURNS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
# Of a pixel, as planes of 16 bits and floats, before it is RGB.
DECODED_BYTES = 4 * 2 + 2 * 4 * 4


def size(path: Path) -> tuple[int, int, int, float | None]:
    """Frames, rows and columns of a clip, and frames a second if it says so."""
    with _opened(path) as (container, stream):
        height, width, _ = next(_shown(container, stream, path)).shape
        rate = stream.average_rate or stream.guessed_rate
    return _count(path), height, width, float(rate) if rate else None


def is_deep(path: Path) -> bool:
    """Whether samples of its first frame have more than 8 bits."""
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            for frame in packet.decode():
                return bool(max(part.bits for part in frame.format.components) > 8)
    return False


def frames(path: Path, most: int | None = None) -> Iterator[np.ndarray]:
    """Its first frames, upright, RGB [H, W, 3], float32 in [0, 1]; all unless there is a `most`.

    Raises `MediaError` where one is damaged, where there are fewer than the clip says it has, and
    where they change their size.
    """
    count = _count(path)
    wanted = count if most is None else min(count, most)
    shape = None
    number = 0
    with _opened(path) as (container, stream):
        for number, frame_HWC in enumerate(_shown(container, stream, path), 1):
            if shape not in (None, frame_HWC.shape):
                raise MediaError(f"{path} changes its size after {number - 1} frames; cut it there")
            shape = frame_HWC.shape
            yield frame_HWC
            if number == wanted:
                return
    raise MediaError(
        f"{path} says that it has {count} frames, and {number} can be decoded; encode it anew"
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and the stream of its pictures."""
    try:
        import av
    except ImportError:
        raise MediaError(f"{path} is a clip, which needs PyAV: {INSTALL}") from None
    # From an open file, for letters of a name may mean something to FFmpeg. Texts may be damaged;
    # nothing here reads them.
    with decoding(path), path.open("rb") as file:
        try:
            with av.open(file, metadata_errors="ignore") as container:
                stream = _stream(container, path)
                stream.thread_type = "AUTO"
                yield container, stream
        except av.FFmpegError as error:  # some of them are no error that Python knows
            raise ValueError(error.strerror) from error


def _stream(container: Any, path: Path) -> Any:
    """The first stream of moving pictures, else of pictures; an attached cover is none."""
    streams = [s for s in container.streams.video if s.codec_context is not None]
    streams = [s for s in streams if "attached_pic" not in str(s.disposition)]
    if not streams:
        raise MediaError(f"{path} has no video stream that can be decoded; {KNOWN}")
    return next((s for s in streams if s.frames > 1), streams[0])


def _count(path: Path) -> int:
    """Frames of a clip: as its header says, else its packets are counted, not decoded."""
    with _opened(path) as (container, stream):
        if 0 < stream.frames <= path.stat().st_size:
            return int(stream.frames)
        return sum(packet.size > 0 for packet in container.demux(stream))


def _shown(container: Any, stream: Any, path: Path) -> Iterator[np.ndarray]:
    """Decoded frames as they are shown, RGB [H, W, 3]."""
    context = stream.codec_context
    check_size(path, context.height, context.width, DECODED_BYTES)
    number = 0
    for packet in container.demux(stream):
        for frame in packet.decode():
            if packet.is_corrupt or frame.is_corrupt:
                raise MediaError(f"{path} is damaged in frame {number}; encode it anew")
            number += 1
            yield upright(_colours(frame), _orientation(frame, path))
    if not number:
        raise MediaError(f"{path} has no frame that can be decoded; {KNOWN}")


def _orientation(frame: Any, path: Path) -> int:
    """How a frame is turned and mirrored when it is shown, as an EXIF orientation."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = (value / 2**16 for value in struct.unpack("=9i", bytes(data)))
            signs = tuple(int(np.sign(round(value))) for value in (a, b, c, d))
            if signs not in TURNS:
                raise MediaError(
                    f"{path} is shown turned by a matrix of {a:g}, {b:g}, {c:g}, {d:g}; quarter "
                    "turns and mirrors work"
                )
            return TURNS[signs]
    return 1


def _colours(frame: Any) -> np.ndarray:
    """A frame of any pixel format as RGB.

    FFmpeg's scaler only brings it to 16 bits a plane, which is exact; its own way from YUV to
    16-bit RGB ends at 65280.
    """
    parts = frame.format.components
    has_alpha = any(part.is_alpha for part in parts)
    if frame.format.is_rgb or frame.format.has_palette:
        return integers(frame.reformat(format="rgba").to_ndarray(), 8)
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
    rgb_HWC = np.clip(np.stack([r_HW, g_HW, b_HW], axis=-1), 0, 1)
    alpha_HWC = np.clip(alpha_HW[0] / top, 0, 1)[..., None] if alpha_HW else None
    return on_white(rgb_HWC, alpha_HWC, premultiplied=False)


def _plane(plane: Any, unit: int) -> np.ndarray:
    """A plane of 16-bit samples [H, W] as float32 multiples of `unit`."""
    samples = np.frombuffer(plane, "<u2").reshape(plane.height, -1)
    return samples[:, : plane.width].astype(np.float32) / np.float32(unit)
