"""Folders of pictures and clips that are made larger as a batch, each in its own shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from contracts.export import clip, picture
from frieze.renderer.batches.picture_folder import fitting, items
from frieze.renderer.errors import FriezeError
from frieze.renderer.spec.render_spec import RenderSpec
from support.command_line import frieze, refused
from support.decoders import saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Upright, wide and deep ones, a text, what is hidden."""
    own = tmp_path / "own"
    own.mkdir()
    Image.fromarray(picture(64, 40)).save(own / "a b.png")
    (own / "a b.txt").write_text("a red\nsun")
    tifffile.imwrite(own / "c.tif", clip(1, 40, 64, bits=16)[0], photometric="rgb")
    Image.fromarray(picture(32, 32)).save(own / "d.jpg")
    (own / ".hidden").write_text("x")
    return own


def test_each_keeps_its_name_shape_depth_and_caption(folder: Path) -> None:
    spec = RenderSpec(height=128, width=128, upscale=str(folder), creativity=0.5)
    found = {each["name"]: each for each in items(folder, spec, {"prompt": "b"}, ("{name}.mkv",))}
    assert list(found) == ["a b", "c", "d"]
    sizes = [(each["height"], each["width"]) for each in found.values()]
    assert sizes == [(128, 80), (80, 128), (128, 128)]
    assert [each["prompt"] for each in found.values()] == ["a red sun", "b", "b"]
    assert [each.get("bits") for each in found.values()] == [None, 16, None]
    assert [each["out"] for each in found.values()] == ["{name}.png", "{name}.tif", "{name}.png"]
    by_decoder = spec.model_copy(update={"creativity": None, "decoder": "infgen"})
    assert "prompt" not in next(items(folder, by_decoder, {}))


@pytest.mark.parametrize("unit", [8, 16])
def test_sizes_in_a_box_are_of_the_pictures_shape(unit: int) -> None:
    for rows, columns in [(64, 92), (97, 31), (333, 1000), (50, 50)]:
        height, width = fitting((1024, 1536), (rows, columns), unit)
        assert height <= 1024
        assert width <= 1536
        assert height % unit == 0 == width % unit
        assert abs(height * columns - width * rows) < unit * min(rows, columns)
        assert max(height / 1024, width / 1536) > 0.9


def test_a_folder_is_made_larger_goes_on_and_keeps_what_is_done(
    tmp_path: Path, folder: Path
) -> None:
    decoder, out = saved(tmp_path / "decoder"), tmp_path / "out"
    words = ["upscale", str(folder), "--size", "128x128", "--decoder", str(decoder), "--local"]
    words += ["--out", str(out), "--quiet"]
    shown = frieze(*words, "--dry-run")
    assert shown.exit_code == 0
    assert f"{folder / 'a b.png'} becomes 80x128" in shown.output
    assert not out.exists()
    assert (shown := frieze(*words)).exit_code == 0, shown.output
    assert imagecodecs.png_decode((out / "a b.png").read_bytes()).shape == (128, 80, 3)
    assert tifffile.imread(out / "c.tif").dtype == np.uint16
    assert '"a b"' in (out / "report.json").read_text()
    refused(frieze(*words), "holds a batch already; use --continue")
    before = (out / "a b.png").stat().st_mtime_ns
    Image.fromarray(picture(40, 40)).save(folder / "e.png")
    assert frieze(*words, "--continue").exit_code == 0
    assert (out / "a b.png").stat().st_mtime_ns == before
    assert imagecodecs.png_decode((out / "e.png").read_bytes()).shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: [file.unlink() for file in own.iterdir()], "holds no picture; give a folder"),
        (lambda own: (own / "x.doc").write_text("x"), "neither a picture nor a clip"),
        (lambda own: (own / "d.txt").write_bytes(b"\xff\xfe\x00"), "d.txt cannot be read"),
        (lambda own: (own / "d.jpg").rename(own / "c.jpg"), "name 'c' is another item's"),
        (lambda own: (own / "d.jpg").rename(own / "_d.jpg"), "name '_d' does not work"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(
    tmp_path: Path, folder: Path, change: Any, message: str
) -> None:
    change(folder)
    words = ["upscale", str(folder), "--size", "128x128", "--with", "render", "--local"]
    refused(frieze(*words, "--out", str(tmp_path / "out")), message)
    assert not (tmp_path / "out").exists()


def test_what_is_larger_than_the_box_is_told_and_the_others_go_on(folder: Path) -> None:
    spec = RenderSpec(height=48, width=48, upscale=str(folder), decoder="infgen")
    assert [each["height"] for each in items(folder, spec, {})] == [40, 24, 48]
    with pytest.raises(FriezeError, match="cannot be read"):
        list(items(folder / "none", spec, {}))
