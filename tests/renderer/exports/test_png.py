"""PNG written by hand is PNG to everyone else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from contracts.export import make_store, picture
from frieze.renderer.codecs import png_rows
from frieze.renderer.codecs.output import Output
from frieze.renderer.exports import png
from frieze.renderer.store import provenance


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """Every chunk's name and data; asserts what the specification demands of the container."""
    data = path.read_bytes()
    assert data[:8] == png.SIGNATURE
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        (crc,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert crc == zlib.crc32(body)
        found.append((body[:4], body[4:]))
        place += 12 + length
    return found


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_stream_is_whole_and_every_reader_agrees(
    tmp_path: Path, bits: int, workers: int
) -> None:
    pixels_HWC = picture(1000, 300, bits)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (128, 128))
    out = png.export(Output.of(store.path, tmp_path / "a.png"), png.Options(workers=workers))
    found = chunks(out)
    names = [name for name, _ in found]
    assert names[0] == b"IHDR"
    assert names[-1] == b"IEND"
    assert names.count(b"IDAT") > 1
    raw = zlib.decompress(b"".join(data for name, data in found if name == b"IDAT"))
    assert len(raw) == 1000 * (1 + 300 * 3 * bits // 8)
    with Image.open(out) as image:
        assert image.size == (300, 1000)
        assert image.info["dpi"] == pytest.approx((240, 240), abs=0.02)
        # Pillow keeps the high byte of 16 bits.
        expected_HWC = pixels_HWC if bits == 8 else (pixels_HWC >> 8).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(image), expected_HWC)


def test_rows_choose_the_filter_that_packs_better(tmp_path: Path) -> None:
    y_HW, x_HW = np.mgrid[:256, :256]
    wave_HW = (x_HW * 37 % 251).astype(np.uint8)
    vertical_HWC = np.stack([wave_HW] * 3, axis=-1)
    ramp_HWC = np.stack([((y_HW * 91) % 256 + x_HW % 2).astype(np.uint8)] * 3, axis=-1)
    for pixels_HWC, kind in ((vertical_HWC, png_rows.FILTER_UP), (ramp_HWC, png_rows.FILTER_SUB)):
        name = f"{kind}.zarr"
        store = make_store(tmp_path / name, pixels_HWC, (128, 128))
        out = png.export(Output.of(store.path, tmp_path / f"{kind}.png"))
        raw = zlib.decompress(b"".join(data for name, data in chunks(out) if name == b"IDAT"))
        kinds = np.frombuffer(raw, np.uint8).reshape(256, -1)[:, 0]
        assert (kinds[1:] == kind).mean() > 0.9


def test_galleries_find_the_parameters(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 80), (32, 32))
    out = png.export(Output.of(store.path, tmp_path / "a.png"))
    with Image.open(out) as image:
        image.load()
        prompt, negative, facts = image.info["parameters"].split("\n")
        assert image.info["frieze"].startswith("{")
        assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
    assert prompt == "a red sun over blue mountains, été 漢"
    assert negative == "Negative prompt: fog"
    assert facts.startswith(
        "Steps: 12, Sampler: DPM++ 2M Karras, CFG scale: 2.5, Distilled CFG Scale: 4, Seed: 7, "
        "Size: 80x64, Model: demo, Fingerprint: f, Version: frieze "
    )


def test_a_store_that_does_not_say_its_sampler_is_given_none(tmp_path: Path) -> None:
    about = {"run": {"picture": {"num_inference_steps": 12, "guidance_scale": 3.5}}}
    store = SimpleNamespace(
        provenance={**about["run"], "fingerprint": "f"},
        layout=SimpleNamespace(width=80, height=64, frames=None),
    )
    assert "\nSteps: 12, CFG scale: 3.5, Size: 80x64, Fing" in provenance.parameters(store)


def test_latin_text_goes_where_old_readers_look() -> None:
    assert png._text("parameters", "été")[4:8] == b"tEXt"
    assert png._text("parameters", "漢")[4:8] == b"iTXt"
