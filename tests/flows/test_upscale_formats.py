"""What is handed in to be made larger, in any format, and what comes back, read by other libraries.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image

from contracts.export import clip
from frieze.renderer import RenderSpec, render
from frieze.renderer.inputs import media
from support.command_line import frieze, refused
from support.decoders import plain
from support.drawing import grey_levels, pixels

SIDES, SIZE = (40, 56), (80, 112)
HALF_A_LEVEL = 0.75 / 65535  # of rounding to 16 bits, and of float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that adds nothing."""
    return plain(tmp_path_factory.mktemp("plain"))


def enlarged(frame_HWC: np.ndarray) -> np.ndarray:
    """By torch, in [0, 1]."""
    x_BCHW = torch.from_numpy(frame_HWC.copy()).permute(2, 0, 1)[None].double()
    larger = F.interpolate(x_BCHW, SIZE, mode="bicubic").clamp(0, 1)
    return np.asarray(larger[0].permute(1, 2, 0))


def deep_png(path: Path, smooth_HWC: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(smooth_HWC))


def deep_tiff(path: Path, smooth_HWC: np.ndarray) -> None:
    tifffile.imwrite(path, smooth_HWC, photometric="rgb", compression="zlib")


def by_pillow(path: Path, smooth_HWC: np.ndarray) -> None:
    Image.fromarray((smooth_HWC >> 8).astype(np.uint8)).save(path)


FORMATS: list[tuple[str, Callable[[Path, np.ndarray], None]]] = [
    ("a.png", deep_png),
    ("a.tif", deep_tiff),
    ("a.avif", by_pillow),
    ("a.jpg", by_pillow),
    ("a.webp", by_pillow),
]


def test_a_picture_of_any_format_comes_back_in_any(tmp_path: Path, folder: Path) -> None:
    """With 16 bits where there are so many; a quantised way through 8 would be seen."""
    for name, write in FORMATS:
        own = tmp_path / name.replace(".", "-")
        own.mkdir()
        write(own / name, clip(1, *SIDES, bits=16)[0])
        expected = enlarged(media.read(own / name).frames_THWC[0])
        asked = {"upscale": str(own / name), "decoder": str(folder), "bits": 16, "local": True}
        size = {"height": SIZE[0], "width": SIZE[1], "out": str(own / "b.tif")}
        render(RenderSpec.model_validate(asked | size), exports=[own / "b.png"])
        for found in (
            tifffile.imread(own / "b.tif"),
            imagecodecs.png_decode((own / "b.png").read_bytes()),
            pixels(own / "b.zarr"),
        ):
            assert found.dtype == np.uint16
            assert np.abs(found / 65535 - expected).max() < HALF_A_LEVEL, name
        assert np.abs((found >> 8) / 255 - expected).max() > HALF_A_LEVEL, "control"


def lossless(path: Path, clip_THWC: np.ndarray, rate: Fraction) -> None:
    with av.open(str(path), "w") as opened:
        stream: Any = opened.add_stream("ffv1", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *SIDES, "bgr0"
        for number, frame_HWC in enumerate(clip_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(format="bgr0")
            frame.pts = number
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())


def test_a_clip_comes_back_frame_by_frame(tmp_path: Path, folder: Path) -> None:
    """All of its frames at its own pace, though the model draws pictures; or the first ones."""
    frames = clip(3, *SIDES)
    lossless(tmp_path / "a.mkv", frames, Fraction(12))
    words = ["upscale", str(tmp_path / "a.mkv"), "--size", "112x80", "--decoder", str(folder)]
    words += ["--local", "--quiet"]
    out = ["--out", str(tmp_path / "b.mp4"), "--also", str(tmp_path / "b.frames")]
    shown = frieze(*words, *out, "--workers", "2")
    assert (shown.exit_code, shown.stderr) == (0, "")
    found = [tifffile.imread(file) for file in sorted((tmp_path / "b.frames").glob("*.tif"))]
    assert len(found) == 3
    for number, frame_HWC in enumerate(found):
        expected = enlarged(frames[number] / 255)
        assert np.abs(frame_HWC / 255 - expected).max() < 0.6 / 255
    assert np.abs(found[0] / 255 - enlarged(frames[2] / 255)).max() > 2 / 255, "control"
    with av.open(str(tmp_path / "b.mp4")) as opened:
        stream = opened.streams.video[0]
        assert (stream.average_rate, stream.width, stream.height) == (12, 112, 80)
        assert sum(1 for _ in opened.decode(video=0)) == 3
    assert frieze(*words, "--frames", "2", "--out", str(tmp_path / "c.zarr")).exit_code == 0
    first_THWC = pixels(tmp_path / "c.zarr").transpose(3, 1, 2, 0)
    assert grey_levels(first_THWC, np.stack(found[:2])) == 0
    refused(frieze(*words, "--frames", "9"), "has 3 frames; 9 are to be drawn")
