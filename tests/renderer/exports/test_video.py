"""Video files are what their names say, to others' decoders: codec, depth, colours, rate, order.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from contracts.export import clip, make_store, picture, psnr, read
from frieze.renderer.codecs import frame_rate
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import video
from frieze.renderer.inputs import media
from frieze.renderer.store.layout import StoreLayout
from support.peaks import peak_bytes
from tolerances import PRORES_PSNR, VIDEO_PSNR

LAYOUT = StoreLayout(64, 64, (32, 64), frames=5, fps=8)


def decoded(path: Path) -> tuple[Any, list[Any]]:
    with av.open(str(path)) as file:
        return file.streams.video[0], list(file.decode(video=0))


@pytest.mark.parametrize(
    ("name", "codec", "profiles", "formats", "tag"),
    [
        ("a.mp4", "h264", ("High", "High 10"), ("yuv420p", "yuv420p10le"), "avc1"),
        ("my.red.sun.mp4", "h264", ("High", "High 10"), ("yuv420p", "yuv420p10le"), "avc1"),
        ("a.mov", "prores", ("HQ", "HQ"), ("yuv422p10le",) * 2, "apch"),
        ("a.h264.mov", "h264", ("High", "High 10"), ("yuv420p", "yuv420p10le"), "avc1"),
        ("a.hevc.mp4", "hevc", ("Main", "Main 10"), ("yuv420p", "yuv420p10le"), "hvc1"),
        ("a.hevc.mkv", "hevc", ("Main", "Main 10"), ("yuv420p", "yuv420p10le"), None),
        ("a.mkv", "h264", ("High", "High 10"), ("yuv420p", "yuv420p10le"), None),
        ("a.prores.mkv", "prores", ("HQ", "HQ"), ("yuv422p10le",) * 2, None),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_name_and_bits_choose_codec_and_depth(
    tmp_path: Path,
    name: str,
    codec: str,
    profiles: tuple[str, str],
    formats: tuple[str, str],
    tag: str | None,
    bits: int,
) -> None:
    pixels_THWC = clip(7, 64, 80, bits)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 80), fps=24)
    stream, frames = decoded(video.export(Output.of(store.path, tmp_path / name)))
    deep = int(bits == 16)
    assert (stream.codec_context.name, stream.codec_context.profile) == (codec, profiles[deep])
    assert {frame.format.name for frame in frames} == {formats[deep]}
    assert tag is None or stream.codec_context.codec_tag == tag
    assert len(frames) == 7
    assert stream.average_rate == 24
    assert [round(frame.time * 24) for frame in frames] == list(range(7))
    found_THWC = media.read(tmp_path / name).frames_THWC
    bar = PRORES_PSNR if codec == "prores" else VIDEO_PSNR
    quantised = np.rint(found_THWC * 65535).astype(np.uint16)
    assert psnr(quantised, pixels_THWC) > bar
    assert psnr(quantised, pixels_THWC[::-1]) < bar, "control"


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_colours_are_tagged_and_are_those_of_the_tags(tmp_path: Path, name: str) -> None:
    """Flat colours, against the recommendation's formula with codes written out here."""
    colours = {(255, 255, 255): (235, 128, 128), (0, 0, 0): (16, 128, 128)}
    colours |= {(255, 0, 0): (63, 102, 240), (0, 0, 255): (32, 240, 118)}
    for number, (rgb, yuv) in enumerate(colours.items()):
        pixels_THWC = np.full((2, 64, 64, 3), rgb, np.uint8)
        store = make_store(tmp_path / f"{number}.zarr", pixels_THWC)
        path = video.export(Output.of(store.path, tmp_path / f"{number}{name}"))
        for frame in decoded(path)[1]:
            tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
            assert tags == (1, 1, 1, 1)
            bits = frame.format.components[0].bits
            kind = np.uint8 if bits == 8 else np.uint16
            for plane, expected in zip(frame.planes, yuv, strict=True):
                found = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
                assert np.abs(found / 2 ** (bits - 8) - expected).max() <= 1.5
        # BT.601 would show red as (81, 90, 240), full range white as 255.
        assert np.abs(read(path).astype(int) - np.array(rgb)).max() <= 4


def test_conversion_is_exact_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    for kind, bits in ((np.uint8, 8), (np.uint16, 10), (np.uint8, 10)):
        pixels_HWC = np.repeat(
            rng.integers(0, np.iinfo(kind).max + 1, (8, 1, 3)).astype(kind), 6, axis=1
        )
        pixels_HWC = np.repeat(pixels_HWC, 2, axis=0)
        unit_HWC = pixels_HWC / np.iinfo(kind).max
        luma_HW = unit_HWC @ [0.2126, 0.7152, 0.0722]
        expected = [
            (16 + 219 * luma_HW) * 2 ** (bits - 8),
            (128 + 224 * (unit_HWC[..., 2] - luma_HW) / 1.8556)[::2, ::2] * 2 ** (bits - 8),
            (128 + 224 * (unit_HWC[..., 0] - luma_HW) / 1.5748)[::2, ::2] * 2 ** (bits - 8),
        ]
        planes = video.yuv(pixels_HWC, bits, halve_rows=True)
        for found, plane in zip(planes, expected, strict=True):
            assert np.abs(found - plane).max() < 0.501


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (16, Fraction(16)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (25, Fraction(25)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_the_frame_rate_is_a_fraction(tmp_path: Path, fps: float, rate: Fraction) -> None:
    assert frame_rate.rate(fps) == rate
    store = make_store(tmp_path / "a.zarr", clip(4, 64, 64), fps=fps)
    for name in ("a.mp4", "a.mov"):
        stream, _ = decoded(video.export(Output.of(store.path, tmp_path / name)))
        assert stream.average_rate == rate
        assert stream.frames == 4


def test_players_can_start_before_the_file_is_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(4, 64, 64))
    for name in ("a.mp4", "a.mov"):
        data = video.export(Output.of(store.path, tmp_path / name)).read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, content) of every box at the top of a file (ISO/IEC 14496-12, 4.2)."""
    found, place = [], 0
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 16 if size == 1 else 8
        size = struct.unpack_from(">Q", data, place + 8)[0] if size == 1 else size
        assert size >= head, "a box that goes on to the end would swallow what is added"
        found.append((kind, data[place + head : place + size]))
        place += size
    assert place == len(data)
    return found


@pytest.mark.parametrize("name", ["a.mp4", "a.hevc.mp4", "a.mov"])
def test_a_box_says_in_xmp_that_a_model_made_it(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 64, 80))
    made = video.export(Output.of(store.path, tmp_path / name))
    found = boxes(made.read_bytes())
    (packet,) = (
        data[16:]
        for kind, data in found
        if kind == b"uuid" and data[:16].hex() == "be7acfcb97a942e89c71999491e3afac"
    )
    told = ElementTree.fromstring(packet).find(".//{*}Description")
    assert told is not None
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert told.get(f"{iptc}DigitalSourceType", "").endswith("/trainedAlgorithmicMedia")
    assert told.get(f"{iptc}AISystemUsed") == "demo"
    assert told.get(f"{iptc}AIPromptInformation") == (
        "a red sun over blue mountains, été 漢\nNegative prompt: fog"
    )
    assert len(decoded(made)[1]) == 3
    if tool := shutil.which("exiftool"):  # which reads it by itself
        run = subprocess.run([tool, "-j", "-XMP:all", made], capture_output=True, check=True)
        (read_back,) = json.loads(run.stdout)
        assert read_back["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_players_and_galleries_find_the_parameters(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(4, 64, 64))
    for name in ("a.mp4", "a.mov", "a.mkv"):
        with av.open(str(video.export(Output.of(store.path, tmp_path / name)))) as file:
            tags = {key.lower(): value for key, value in file.metadata.items()}
        assert tags["comment"].startswith("a red sun over blue mountains, été 漢\n")
        assert "Size: 64x64, Frames: 4, FPS: 24.0" in tags["comment"]
        assert "trainedAlgorithmicMedia" in tags["description"]
        is_told = tags.get("digital_source_type", "").endswith("/trainedAlgorithmicMedia")
        assert is_told == name.endswith(".mkv")  # the others have XMP


@pytest.mark.parametrize(
    ("name", "height", "width", "works"),
    [("a.mp4", 65, 64, "64x66"), ("a.mkv", 64, 33, "34x64"), ("a.mov", 65, 33, "34x65")],
)
def test_odd_sizes_are_refused_with_what_works(
    tmp_path: Path, name: str, height: int, width: int, works: str
) -> None:
    layout = StoreLayout(height, width, (64, 64), frames=5, fps=8)
    with pytest.raises(ExportError, match=f"draw {works}, or use .frames or .zarr"):
        video.check(tmp_path / name, layout)
    video.check(tmp_path / "a.mov", StoreLayout(65, 64, (64, 64), frames=5, fps=8))
    with pytest.raises(ExportError, match="16 to 16384"):
        video.check(tmp_path / name, StoreLayout(8, 64, (64, 64), frames=5, fps=8))


def test_what_cannot_be_encoded_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video.check(tmp_path / "a.mp4", LAYOUT)
    with pytest.raises(ExportError, match=r"ProRes cannot be written to \.mp4; h264 and hevc work"):
        video.check(tmp_path / "a.prores.mp4", LAYOUT)
    monkeypatch.setattr(av, "codecs_available", {"libx265"})
    with pytest.raises(ExportError, match="no encoder libx264"):
        video.check(tmp_path / "a.mp4", LAYOUT)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ExportError, match=r"pip install 'frieze\[video\]'"):
        video.check(tmp_path / "a.mp4", LAYOUT)


def test_an_encoder_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "a.zarr", clip(4, 64, 64))
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setitem(video.H264.options, "profile", "baseline")
    monkeypatch.setitem(video.H264.options, "crf", "-7000")
    monkeypatch.setitem(video.H264.options, "preset", "no such preset")
    with pytest.raises(ExportError, match=r"cannot be encoded as H\.264") as caught:
        video.export(Output.of(store.path, tmp_path / "a.mp4"))
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """Bytes that Python and numpy hold at once: a few frames, however many there are."""
    peaks = []
    for frames in (8, 32):
        store = make_store(tmp_path / f"{frames}.zarr", clip(frames, 256, 256), (256, 256))
        path, out = store.path, tmp_path / f"{frames}.mp4"
        peaks.append(peak_bytes(lambda path=path, out=out: video.export(Output.of(path, out))))
    frame = 256 * 256 * 3
    assert peaks[1] - peaks[0] < 2 * frame, peaks
    assert peak_bytes(lambda: clip(32, 256, 256)) > 24 * frame, "control"


@pytest.mark.parametrize("name", ["scene:1.mp4", "http:2.mkv", "a%03d?b#c.mp4"])
def test_a_name_is_a_name_and_no_address(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels_THWC = clip(5, 64, 80)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 80), fps=24)
    monkeypatch.chdir(tmp_path)
    video.export(Output.of(store.path, name))
    assert sorted(os.listdir(tmp_path)) == sorted(["a.zarr", name])
    found_THWC = media.read(name).frames_THWC
    assert found_THWC.shape == pixels_THWC.shape
    assert psnr(np.rint(found_THWC * 255).astype(np.uint8), pixels_THWC) > VIDEO_PSNR


def test_a_picture_is_no_clip(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64))
    with pytest.raises(ExportError, match=r"holds a picture; use \.tif"):
        video.export(Output.of(store.path, tmp_path / "a.mp4"))


def test_one_store_gives_one_file_whatever_lies_in_fresh_memory(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(7, 96, 144), (32, 144), fps=24)
    code = """
import sys
from frieze.renderer.codecs.output import Output
from frieze.renderer.exports import video
for out in sys.argv[2:]:
    video.export(Output.of(sys.argv[1], out))
"""
    names, fillings = ("a.mp4", "a.hevc.mp4", "a.mov"), ("1", "200")
    for filling in fillings:
        (tmp_path / filling).mkdir()
        subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                store.path,
                *(tmp_path / filling / name for name in names),
            ],
            env=os.environ | {"MALLOC_PERTURB_": filling},
            check=True,
        )
    for name in names:
        one, other = ((tmp_path / filling / name).read_bytes() for filling in fillings)
        assert one == other, name
