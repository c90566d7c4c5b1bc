"""Clips with damaged headers, turns and endings: shown as players do, or one line.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import os
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from contracts.export import clip
from frieze.renderer.errors import FriezeError, MediaError
from frieze.renderer.inputs import faults, media
from frieze.renderer.inputs.sources import fitted, look
from support.shared import kept

TURNS = {  # a, b, c, d of a display matrix, by EXIF orientation
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


@kept
def mp4(frames: int = 9) -> bytes:
    """48 x 64 pixels at 25 frames a second, its header before its frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mp4")
        with av.open(str(path), "w", options={"movflags": "faststart"}) as opened:
            opened.metadata["comment"] = "a red sun é"
            stream = opened.add_stream("libx264", rate=Fraction(25), options={"g": "3", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for number, pixels_HWC in enumerate(clip(frames, 48, 64)):
                frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
                frame.pts = number
                opened.mux(stream.encode(frame))
            opened.mux(stream.encode())
        return path.read_bytes()


def put(data: bytes, box: bytes, at: int, value: bytes) -> bytes:
    """The file with bytes of a box's content replaced."""
    place = data.index(box) + 4 + at
    return data[:place] + value + data[place + len(value) :]


@pytest.mark.parametrize("orientation", TURNS)
def test_clips_are_turned_and_mirrored_as_players_show_them(
    tmp_path: Path, orientation: int
) -> None:
    a, b, c, d = (value << 16 for value in TURNS[orientation])
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "a.mp4"
    path.write_bytes(put(mp4(), b"tkhd", 40, matrix))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "plain.mp4").write_bytes(mp4())
    plain_HWC = np.rint(media.read(tmp_path / "plain.mp4", 1).frames_THWC[0] * 255)
    image = Image.fromarray(plain_HWC.astype(np.uint8))
    image.getexif()[0x0112] = orientation
    expected_HWC = np.asarray(ImageOps.exif_transpose(image)) / 255
    found = media.read(path)
    assert found.frames_THWC.shape == (9, *expected_HWC.shape)
    assert media.peek(path) == (9, *expected_HWC.shape[:2], 25)
    np.testing.assert_allclose(found.frames_THWC[0], expected_HWC, atol=0.51 / 255)


def test_a_slanted_clip_is_refused(tmp_path: Path) -> None:
    slanted = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(put(mp4(), b"tkhd", 40, slanted))
    with pytest.raises(MediaError, match=r"turned by a matrix of 0\.7"):
        media.peek(tmp_path / "a.mp4")


READ = {
    "text of other letters": mp4().replace("é".encode(), b"\xff\xfe"),
    "no time scale of all": put(mp4(), b"mvhd", 12, bytes(4)),
    "no duration": put(mp4(), b"mdhd", 16, bytes(4)),
    "absurd time scale": put(mp4(), b"mdhd", 12, b"\x7f\xff\xff\xff"),
    "frames without time": put(mp4(), b"stts", 12, bytes(4)),
}


@pytest.mark.parametrize("name", READ)
def test_damage_that_frames_do_not_need_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "whole.mp4").write_bytes(mp4())
    (tmp_path / "a.mp4").write_bytes(READ[name])
    expected_THWC = media.read(tmp_path / "whole.mp4").frames_THWC
    np.testing.assert_array_equal(media.read(tmp_path / "a.mp4").frames_THWC, expected_THWC)


def test_a_clip_is_never_shorter_than_it_says(tmp_path: Path) -> None:
    """Found before a render starts: frames that are missing are not made up."""
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4()[: -len(mp4()) // 4])
    assert media.peek(path).frames == 9
    assert sum(1 for _ in media.frames(path, 1)) == 1
    for read in (media.read, lambda where: look(str(where), "init", num_frames=9)):
        with pytest.raises(MediaError, match=r"says that it has 9 frames|damaged in frame \d"):
            read(path)
    path.write_bytes(mp4(5))
    with pytest.raises(FriezeError, match="has 5 frames; 9 are to be drawn"):
        look(str(path), "init", num_frames=9)


def test_a_name_may_have_any_letters(tmp_path: Path) -> None:
    for name in ("scene:1.mp4", "http:", "a\n\x1b[31mb.mp4", "ä" * 120, os.fsdecode(b"\xff.mp4")):
        path = tmp_path / name
        path.write_bytes(mp4())
        assert len(media.read(path, 2).frames_THWC) == 2
        path.write_bytes(b"nothing")
        with pytest.raises(MediaError) as caught:
            media.read(path)
        assert str(caught.value).isprintable()


def test_frames_that_do_not_fit_into_memory_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4())
    monkeypatch.setattr(faults, "free_bytes", lambda: 10**6)
    assert sum(1 for _ in media.frames(path)) == 9  # one at a time
    monkeypatch.setattr(faults, "free_bytes", lambda: 500_000)
    with pytest.raises(MediaError, match=r"64x48 pixels, times 9 frames, which need"):
        media.read(path)
    monkeypatch.setattr(faults, "free_bytes", lambda: 10_000)
    with pytest.raises(MediaError, match=r"64x48 pixels which need"):
        media.peek(path)


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4())
    found = look(str(path), "init", num_frames=9)
    frames = list(fitted(found, 48, 64, 9))
    assert len(frames) == 9
    assert frames[0].shape == (3, 48, 64)
    path.write_bytes(mp4(10))
    with pytest.raises(MediaError, match="has changed since"):
        next(iter(fitted(found, 48, 64, 9)))
    path.unlink()
    with pytest.raises(MediaError, match="there is no file"):
        next(iter(fitted(found, 48, 64, 9)))
