"""Feathered masks, and pictures that stand on a larger canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frieze.renderer.inputs.inpaint_canvas import InpaintCanvas
from frieze.renderer.inputs.masks import feathered
from frieze.renderer.inputs.sources import Source, look


@pytest.mark.parametrize("width", [0, 1, 2, 3, 8, 15, 40])
def test_a_feather_lies_around_what_is_white_and_nowhere_else(width: int) -> None:
    mask = np.zeros((96, 80), np.float32)
    mask[40:50, 30:44] = 1
    mask[60, 60] = 0.5
    soft = feathered(mask, width)
    assert soft.dtype == np.float32
    assert (soft >= mask - 1e-4).all()
    assert (soft[mask == 1] == 1).all()
    far = np.ones(mask.shape, bool)
    for rows, columns in ((slice(40, 50), slice(30, 44)), (slice(60, 61), slice(60, 61))):
        far[
            rows.start - min(width, rows.start) : rows.stop + width,
            max(0, columns.start - width) : columns.stop + width,
        ] = False
    assert (soft[far] == 0).all()
    if width > 1:
        middle = soft[45, 44 : 44 + width]
        assert (np.diff(middle) <= 0).all()
        assert ((middle > 0) & (middle < 1)).any()


def test_a_feather_goes_on_over_the_edges_of_a_picture() -> None:
    mask = np.zeros((32, 32), np.float32)
    mask[:, 16:] = 1
    soft = feathered(mask, 8)
    assert np.array_equal(soft, np.repeat(soft[:1], 32, 0))
    assert (feathered(np.ones((9, 7), np.float32), 30) == 1).all()
    assert (feathered(np.zeros((9, 7), np.float32), 30) == 0).all()


def saved(path: Path, pixels: np.ndarray) -> Source:
    Image.fromarray(pixels).save(path)
    return look(str(path), "init", num_frames=1)


def test_a_placed_picture_is_drawn_around_and_its_edges_go_on(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    init = saved(tmp_path / "a.png", pixels)
    canvas = InpaintCanvas(init, (48, 64), None, (32, 8), feather=0)
    (frame,) = canvas.frames(48, 64, 1)
    assert frame.shape == (4, 48, 64)
    box = slice(8, 24), slice(32, 56)
    assert np.array_equal(np.round((frame[:3, *box] + 1) * 127.5).transpose(1, 2, 0), pixels)
    inside = np.zeros((48, 64), bool)
    inside[box] = True
    assert np.array_equal(frame[3] == 0, inside)
    assert np.array_equal(frame[:3, 8:24, :32], np.repeat(frame[:3, 8:24, 32:33], 32, 2))
    assert np.array_equal(frame[:3, 24:, 32:56], np.repeat(frame[:3, 23:24, 32:56], 24, 1))
    # A smaller stage has the same picture, and parts of its pixels.
    (small,) = canvas.frames(12, 16, 1)
    assert small[3].mean() == pytest.approx(frame[3].mean(), abs=1e-6)
    assert small[3, 0, 0] == 1
    assert small[3, 4, 10] == 0


def test_a_mask_adds_to_what_is_free_and_stands_still_for_a_clip(tmp_path: Path) -> None:
    init = saved(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8))
    values = np.zeros((16, 32), np.uint8)
    values[:4, :4] = 255
    values[8, 8] = 51
    mask = saved(tmp_path / "m.png", values)
    canvas = InpaintCanvas(init, (16, 32), mask, (0, 0), feather=0)
    first, last = canvas.frames(16, 32, 2)
    assert np.array_equal(first, last)
    assert (first[3, :, 16:] == 1).all()
    assert (first[3, :4, :4] == 1).all()
    assert first[3, 8, 8] == pytest.approx(0.2, abs=1e-4)
    assert first[3].sum() == pytest.approx(16 * 16 + 16 + 0.2, abs=1e-3)
