"""A folder of TIFFs: every bit of every frame, in files that others open."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from contracts.export import clip, make_store, picture
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import frames
from support.peaks import peak_bytes


@pytest.mark.parametrize("bits", [8, 16])
def test_every_bit_of_every_frame_is_kept(tmp_path: Path, bits: int) -> None:
    noise = [np.roll(picture(97, 65, bits), 7 * number, axis=0) for number in range(3)]
    store = make_store(tmp_path / "a.zarr", np.stack(noise), (32, 65), fps=12.5)
    out = frames.export(Output.of(store.path, tmp_path / "a.frames", dpi=150))
    names = ["000000.tif", "000001.tif", "000002.tif"]
    assert sorted(os.listdir(out)) == [*names, "frieze.json"]
    for name, expected_HWC in zip(names, noise, strict=True):
        with tifffile.TiffFile(out / name) as file:
            page = file.pages.first
            np.testing.assert_array_equal(page.asarray(), expected_HWC)
            assert (page.compression.name, page.predictor) == ("ADOBE_DEFLATE", 2)
            assert "trainedAlgorithmicMedia" in page.tags[700].value.decode()
            assert not file.is_bigtiff
        with Image.open(out / name) as image:
            assert image.size == (65, 97)
            assert image.info["dpi"] == (150, 150)
    assert not np.array_equal(tifffile.imread(out / names[0]), noise[1]), "control"
    about = json.loads((out / "frieze.json").read_text())
    assert (about["fps"], about["dpi"], about["picture"]["model"]) == (12.5, 150, "demo")


def test_an_earlier_export_is_replaced_whole(tmp_path: Path) -> None:
    long = make_store(tmp_path / "a.zarr", clip(5, 64, 64))
    short = make_store(tmp_path / "b.zarr", clip(2, 64, 64))
    out = frames.export(Output.of(long.path, tmp_path / "a.frames"))
    frames.export(Output.of(short.path, out, overwrite=True))
    assert sorted(os.listdir(out)) == ["000000.tif", "000001.tif", "frieze.json"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="did not make"):
        frames.export(Output.of(long.path, out, overwrite=True))
    assert (out / "notes.txt").read_text() == "mine"


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    peaks = []
    for number in (8, 32):
        store = make_store(tmp_path / f"{number}.zarr", clip(number, 256, 256), (256, 256))
        path, out = store.path, tmp_path / f"{number}.frames"
        peaks.append(peak_bytes(lambda path=path, out=out: frames.export(Output.of(path, out))))
    assert peaks[1] - peaks[0] < 2 * 256 * 256 * 3, peaks
    assert peak_bytes(lambda: clip(32, 256, 256)) > 24 * 256 * 256 * 3, "control"
