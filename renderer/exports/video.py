"""Clips as MP4, QuickTime or Matroska, encoded frame by frame while they are drawn.

The name chooses the codec: `clip.mp4` is H.264, `clip.mov` ProRes 422 HQ; `clip.h264.mov` and
`clip.prores.mkv` say it before the suffix. A store of 16 bits gives 10.
Colours are BT.709 in limited range (ITU-R BT.709-6, section 3), and the file says so.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.frame_rate import rate
from ..codecs.output import Output
from ..errors import ExportError
from ..files.location import Location
from ..inputs.clips import BT709, INSTALL
from ..spec.units import BYTES_OF
from ..store import provenance
from ..store.layout import StoreLayout
from ..store.provenance import check_clip
from ..store.store import Store

suffixes = (".mp4", ".mov", ".mkv")

# An XMP packet's place in a file of the ISO base media format: a box of this type at the top
# (XMP specification, part 3). It comes last, where it moves nothing that the file points to.
XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
# Code points of ITU-T H.273: primaries, transfer and matrix of BT.709; limited range.
BT709_CODE, LIMITED = 1, 1


@dataclass(frozen=True)
class Codec:
    """One encoder: its options, and a pixel format for stores of 8 and of 16 bits."""

    name: str
    encoder: str
    formats: tuple[str, str]
    options: dict[str, str]
    longest_side: int
    tag: str | None = None

    @property
    def divisor(self) -> tuple[int, int]:
        """Rows and columns that one sample of colour covers: every side is a multiple."""
        return (2 if "420" in self.formats[0] else 1, 2)


# x264 looks no frames ahead: its AVX-512 code for that reads past the end of a row, so that one
# store gave different files. Without it a file is a little larger, and less memory is held.
H264 = Codec(
    name="H.264",
    encoder="libx264",
    formats=("yuv420p", "yuv420p10le"),
    options={"crf": "16", "preset": "medium", "rc-lookahead": "0"},
    longest_side=16384,
)
# Looking 20 frames ahead instead of 40 halves the memory at no visible cost.
HEVC = Codec(
    name="HEVC",
    encoder="libx265",
    formats=("yuv420p", "yuv420p10le"),
    options={
        "crf": "16",
        "preset": "medium",
        "x265-params": "log-level=none:info=0:rc-lookahead=20",
    },
    longest_side=16384,
    tag="hvc1",
)
PRORES = Codec(
    name="ProRes",
    encoder="prores_ks",
    formats=("yuv422p10le", "yuv422p10le"),
    options={"profile": "hq", "vendor": "apl0"},
    longest_side=16384,
)
CODECS = {"h264": H264, "hevc": HEVC, "prores": PRORES}
# Words of other codecs, or other words of these: a name that has one means it.
OTHERS = {
    "av1",
    "vp8",
    "vp9",
    "vvc",
    "h265",
    "h266",
    "x264",
    "x265",
    "avc",
    "mpeg4",
    "dnxhr",
    "ffv1",
}


@dataclass(frozen=True)
class Container:
    """One file format: FFmpeg's name of it, its options, and its codecs, the default first."""

    muxer: str
    options: dict[str, str]
    codecs: tuple[str, ...]
    is_boxed: bool = True  # of the ISO base media format, or QuickTime's, which that comes from


CONTAINERS = {
    ".mp4": Container("mp4", {"movflags": "+faststart"}, ("h264", "hevc")),
    # QuickTime's own tags have no room for what drew the clip.
    ".mov": Container(
        "mov", {"movflags": "+faststart+use_metadata_tags"}, ("prores", "h264", "hevc")
    ),
    # Else Matroska writes a random id into every file.
    ".mkv": Container(
        "matroska", {"fflags": "+bitexact"}, ("h264", "hevc", "prores"), is_boxed=False
    ),
}


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: a clip, of even sizes."""
    check_clip(out, layout)
    codec = _codec(out)
    rows, columns = codec.divisor
    height, width = layout.height // rows * rows, layout.width // columns * columns
    if (height, width) != (layout.height, layout.width):
        raise ExportError(
            f"{out}: {codec.name} has no odd sizes, and the clip is {layout.width}x"
            f"{layout.height}; draw {width + layout.width % columns * columns}x"
            f"{height + layout.height % rows * rows}, or use .frames or .zarr"
        )
    longest = max(layout.height, layout.width)
    if not 16 <= min(layout.height, layout.width) <= longest <= codec.longest_side:
        raise ExportError(
            f"{out}: {codec.name} has sides of 16 to {codec.longest_side} pixels, and the clip is "
            f"{layout.width}x{layout.height}; use .frames or .zarr"
        )
    _av(out, codec)


def export(output: Output) -> Path:
    """Write a store's clip as a video file; returns its path. No dpi has a place in it.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out = output.store, output.path
    check(out, output.layout)
    codec = _codec(out)
    av = _av(out, codec)
    container = CONTAINERS[out.suffix.lower()]
    with output.file() as part:
        try:
            _encode(av, part, container, codec, output)
            if container.is_boxed:
                _append_xmp(part, provenance.xmp(None, store.provenance).encode())
        except av.FFmpegError as error:
            raise ExportError(
                f"{out} cannot be encoded as {codec.name} ({error.strerror}); "
                "use another codec, .frames or .zarr"
            ) from error
    return out


def _codec(out: Location) -> Codec:
    """As the name says, else the container's own."""
    container = CONTAINERS[out.suffix.lower()]
    word = Path(out.stem).suffix.lower().removeprefix(".")
    if word in OTHERS:
        raise ExportError(
            f"{out}: {word} is not written here; {' and '.join(container.codecs)} work in "
            f"{out.suffix}, as clip.{container.codecs[0]}{out.suffix}"
        )
    if word not in CODECS:
        return CODECS[container.codecs[0]]
    if word not in container.codecs:
        raise ExportError(
            f"{out}: {CODECS[word].name} cannot be written to {out.suffix}; "
            f"{' and '.join(container.codecs)} work, or .mov"
        )
    return CODECS[word]


def _av(out: Location, codec: Codec) -> Any:
    """PyAV, if it is installed and has the encoder."""
    try:
        import av
    except ImportError:
        raise ExportError(f"{out} needs PyAV: {INSTALL}; or use .frames or .zarr") from None
    if codec.encoder not in av.codecs_available:
        raise ExportError(
            f"{out}: this PyAV has no encoder {codec.encoder} for {codec.name}; "
            "install PyAV's own wheel, or use another codec, .frames or .zarr"
        )
    return av


def _encode(av: Any, part: Path, container: Container, codec: Codec, output: Output) -> None:
    store = output.store
    options = container.options
    with av.open(f"file:{part}", "w", format=container.muxer, options=options) as file:
        file.metadata.update(_about(store, container))
        stream = _stream(file, codec, store.layout)
        for number, pixels_HWC in store.frames_in_order(wait=output.follow):
            frame = _frame(av, stream.pix_fmt, pixels_HWC)
            frame.pts, frame.time_base = number, 1 / rate(store.layout.fps)
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def _append_xmp(part: Path, packet: bytes) -> None:
    """Add a box to a whole file: its size, "uuid", the type, the packet."""
    size = struct.pack(">I4s", 8 + len(XMP_BOX.bytes) + len(packet), b"uuid")
    with part.open("ab") as file:
        file.write(size + XMP_BOX.bytes + packet)


def _stream(file: Any, codec: Codec, layout: StoreLayout) -> Any:
    frames_per_second = rate(layout.fps)
    stream = file.add_stream(codec.encoder, rate=frames_per_second, options=dict(codec.options))
    stream.height, stream.width = layout.height, layout.width
    stream.pix_fmt = codec.formats[BYTES_OF[layout.dtype] - 1]
    context = stream.codec_context
    context.time_base = 1 / frames_per_second
    context.color_primaries = context.color_trc = context.colorspace = BT709_CODE
    context.color_range = LIMITED
    if codec.tag is not None:
        context.codec_tag = codec.tag
    return stream


def _about(store: Store, container: Container) -> dict[str, str]:
    kind = provenance.source_type(store.provenance)
    return {
        "comment": provenance.parameters(store),
        "description": provenance.as_json({**store.provenance, "digital_source_type": kind}),
        "encoder": provenance.software(),
        **({} if container.is_boxed else {"DIGITAL_SOURCE_TYPE": kind}),
    }


def _frame(av: Any, pix_fmt: str, pixels_HWC: np.ndarray) -> Any:
    """One frame of the encoder's own pixels, converted here: FFmpeg's way from 16 bits is off."""
    height, width, _ = pixels_HWC.shape
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = frame.format.components[0].bits
    planes = yuv(pixels_HWC, bits, halve_rows="420" in pix_fmt)
    for plane, samples_HW in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size // samples_HW.itemsize), samples_HW.dtype)
        padded[:, : plane.width] = samples_HW
        plane.update(padded.tobytes())
    frame.colorspace = frame.color_primaries = frame.color_trc = BT709_CODE
    frame.color_range = LIMITED
    return frame


def yuv(pixels_HWC: np.ndarray, bits: int, *, halve_rows: bool) -> Iterator[np.ndarray]:
    """Luma and both chroma planes of `bits`, in limited range.

    Chroma lies on every second column, weighed 1 2 1 with its neighbours, and between rows where
    these are halved: the places that H.264, HEVC and ProRes mean when they say nothing.
    """
    red, blue = (np.float32(weight) for weight in BT709)
    top = np.float32(np.iinfo(pixels_HWC.dtype).max)
    r_HW, g_HW, b_HW = np.moveaxis(pixels_HWC.astype(np.float32), -1, 0) / top
    y_HW = red * r_HW + (1 - red - blue) * g_HW + blue * b_HW
    unit = np.float32(2 ** (bits - 8))
    kind = "u1" if bits == 8 else "<u2"
    yield np.rint((16 + 219 * y_HW) * unit).astype(kind)
    for colour_HW, weight in ((b_HW, blue), (r_HW, red)):
        chroma_HW = (colour_HW - y_HW) / (2 * (1 - weight))
        if halve_rows:
            chroma_HW = (chroma_HW[0::2] + chroma_HW[1::2]) / 2
        wide_HW = np.pad(chroma_HW, ((0, 0), (1, 0)), mode="edge")
        left_HW, here_HW, right_HW = wide_HW[:, :-1:2], wide_HW[:, 1::2], wide_HW[:, 2::2]
        chroma_HW = (left_HW + 2 * here_HW + right_HW) / 4
        yield np.rint((128 + 224 * chroma_HW) * unit).astype(kind)
