"""Marks in pixels: the same on any number of workers, known again, refused where unknown."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts import watermark
from frieze.renderer import FingerprintError, SpecError, plan, render, resume
from frieze.renderer.watermarks import luminance, of_spec
from support.command_line import frieze, refused
from support.drawing import draw, pixels, small_spec, stop_after

SIZE = {"height": 160, "width": 128, "chunk": 16}
SMALL: dict[str, Any] = SIZE | {"num_inference_steps": 2, "method": "none"}
MARKED = SMALL | {"watermark": "luminance"}
POSTER = Path(luminance.__file__).parents[1] / "demo" / "poster.png"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", watermark.NAMES)
def test_a_mark_does_not_tell_how_rows_were_cut(name: str, bits: int) -> None:
    watermark.is_the_same_however_rows_are_cut(name, bits)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Pixels without a mark."""
    out = tmp_path_factory.mktemp("plain") / "a.zarr"
    draw(out, **SMALL)
    return pixels(out)


def test_workers_and_resumes_leave_the_same_mark(tmp_path: Path, plain: np.ndarray) -> None:
    """Three workers' bands of 160 rows are unequal; what is not as unmarked is the mark alone."""
    options = luminance.Options()
    marked = luminance.mark(plain, 0, frame=None, size=plain.shape[:2], options=options)
    assert luminance.detect(marked) > luminance.FOUND > luminance.detect(plain)
    for workers in (1, 2, 3):
        out = tmp_path / f"{workers}.zarr"
        draw(out, **MARKED, workers=workers)
        draw(tmp_path / f"plain-{workers}.zarr", **SMALL, workers=workers)
        own = pixels(tmp_path / f"plain-{workers}.zarr")
        own = luminance.mark(own, 0, frame=None, size=own.shape[:2], options=options)
        assert np.array_equal(pixels(out), own)
    assert np.array_equal(pixels(tmp_path / "1.zarr"), marked)
    stop_after(small_spec(tmp_path / "b.zarr", **MARKED), 1)
    resume(tmp_path / "b.zarr")
    assert np.array_equal(pixels(tmp_path / "b.zarr"), marked)
    assert not np.array_equal(plain, marked)  # the control


def test_a_plan_names_the_mark(tmp_path: Path) -> None:
    told = "8 bit, seed 7, watermark luminance"
    assert told in str(plan(small_spec(tmp_path / "a.zarr", **MARKED)))
    assert "watermark" not in str(plan(small_spec(tmp_path / "a.zarr", **SMALL)))


def test_a_store_is_not_gone_on_with_under_another_mark(tmp_path: Path) -> None:
    stop_after(small_spec(tmp_path / "a.zarr", **MARKED), 1)
    mine = MARKED | {"watermark_options": {"word": "mine"}}
    for other, why in (
        (SMALL, r"watermark: \"luminance\" in the store, null"),
        (mine, "watermark_options"),
    ):
        with pytest.raises(FingerprintError, match=why):
            render(small_spec(tmp_path / "a.zarr", **other), continued=True)


def test_cuts_and_jpeg_leave_the_mark_and_other_sizes_do_not() -> None:
    whole = np.asarray(Image.open(POSTER).convert("RGB"))
    part = whole[100:484, 200:584]
    marked = luminance.mark(part, 0, frame=None, size=part.shape[:2], options=luminance.Options())
    assert np.abs(marked.astype(int) - part).max() == 1
    scores = {
        "png": luminance.detect(marked),
        "cut": luminance.detect(marked[37:300, 51:290]),
        "jpeg 90": luminance.detect(jpeg(marked, 90)),
        "jpeg 50": luminance.detect(jpeg(marked, 50)),
    }
    assert min(scores.values()) > 2 * luminance.FOUND, scores
    deep = luminance.mark(
        part.astype(np.uint16) * 257, 0, frame=None, size=(1, 1), options=luminance.Options()
    )
    assert luminance.detect(deep) > 2 * luminance.FOUND
    smaller = np.asarray(Image.fromarray(marked).resize((345, 345), Image.Resampling.LANCZOS))
    controls = {
        "resized": luminance.detect(smaller),
        "unmarked": luminance.detect(part),
        "another word": luminance.detect(marked, "another"),
    }
    assert max(controls.values()) < luminance.FOUND, controls


def jpeg(pixels_HWC: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_what_no_watermark_is_or_takes_is_said_in_one_line(tmp_path: Path) -> None:
    words = ("render", "a red sun", "--size", "64x64", "--local", "--out", str(tmp_path / "a.zarr"))
    for more, part in (
        (("--watermark", "invisible"), "no 'invisible' in watermarks; there are: luminance"),
        (("--watermark", ""), "watermark"),
        (("--watermark", "luminance", "--watermark-option", "levels=0"), "from 1 to 16"),
        (("--watermark", "luminance", "--watermark-option", "level=1"), "the nearest is 'levels'"),
        (("--watermark", "luminance", "--watermark-option", "levels"), "is not NAME=VALUE"),
        (("--watermark-option", "levels=1"), "there is no watermark; add --watermark"),
    ):
        refused(frieze(*words, *more), part)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="hold no pattern"):
        luminance.detect(np.zeros((64, 300, 3), np.uint8))
    with pytest.raises(SpecError, match="watermark"):
        draw(tmp_path / "a.zarr", **SMALL, watermark="../luminance")


@pytest.mark.parametrize(
    ("gives", "part"),
    [
        (lambda rows: 1 / 0, "at row 3: ZeroDivisionError"),
        (lambda rows: sys.exit(2), "at row 3: SystemExit"),
        (lambda rows: None, "gave a NoneType for uint8"),
        (lambda rows: rows[:-1], "gave uint8 (1, 4, 3) for uint8 (2, 4, 3)"),
    ],
)
def test_a_fault_of_a_watermark_is_told_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gives: Any, part: str
) -> None:
    def mark(rows: np.ndarray, row: int, **_: Any) -> Any:
        return gives(rows)

    spec = small_spec(tmp_path / "a.zarr", **MARKED)
    rows = np.zeros((2, 4, 3), np.uint8)
    unfaulty = of_spec(spec)
    assert unfaulty is not None
    assert unfaulty(rows, 3, None).shape == rows.shape  # the control
    monkeypatch.setattr(luminance, "mark", mark)
    marked = of_spec(spec)
    assert marked is not None
    with pytest.raises(SpecError, match=re.escape(part)):
        marked(rows, 3, None)
