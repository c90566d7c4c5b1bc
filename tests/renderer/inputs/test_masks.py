"""Masks of users: cells by their nearest pixel, and the picture's aspect or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from frieze.renderer.errors import MediaError, PlanError
from frieze.renderer.inputs.masks import area_means, cells, check_shape, luma, nearest_cells
from frieze.renderer.inputs.sources import Source, look


def saved(folder: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(folder / "mask.png")
    return str(folder / "mask.png")


@pytest.mark.parametrize("size", [(24, 36), (16, 24), (8, 12), (3, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_cells_are_those_of_the_nearest_pixel_that_is_not_black(
    tmp_path: Path, size: tuple[int, int], mode: str
) -> None:
    values = np.random.default_rng(3).integers(0, 3, (16, 24), np.uint8)
    pixels = values if mode == "L" else np.stack([0 * values, values, 0 * values], -1)
    source = look(saved(tmp_path, pixels), "mask", num_frames=1)
    (made,) = nearest_cells(source, *size)
    expected = F.interpolate(torch.from_numpy(values)[None, None].float(), size=size)[0] > 0
    assert made.dtype == np.float32
    assert np.array_equal(made, expected.float().numpy())


@pytest.mark.parametrize(
    ("size", "works"),
    [
        ((20, 30), r"30x20 pixels and the picture 64x48: .* as 64x48 or 30x22 or 27x20$"),
        ((64, 48), r"48x64 pixels and the picture 64x48"),
        ((48, 65), r"65x48 pixels"),
        ((1, 9000), r"as 64x48 or 9000x6750 or 1x1$"),
    ],
)
def test_a_mask_of_another_aspect_is_refused(size: tuple[int, int], works: str) -> None:
    with pytest.raises(PlanError, match=works) as caught:
        check_shape(Source("m.png", "", 1, *size), "mask", 48, 64)
    assert "\n" not in str(caught.value)
    for height, width in ((48, 64), (24, 32), (96, 128), (3, 4), (47, 63)):
        check_shape(Source("m.png", "", 1, height, width), "mask", 48, 64)


def test_what_is_no_mask_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    cases: list[tuple[Path, Any]] = [
        (tmp_path / "gone.png", "gone.png"),
        (tmp_path / "empty.png", "empty"),
        (tmp_path, "folder|directory"),
    ]
    for path, match in cases:
        with pytest.raises(MediaError, match=match):
            look(str(path), "mask", num_frames=1)


def test_a_mask_that_changed_since_is_refused(tmp_path: Path) -> None:
    source = look(saved(tmp_path, np.zeros((3, 4), np.uint8)), "mask", num_frames=1)
    saved(tmp_path, np.ones((3, 4), np.uint8))
    with pytest.raises(MediaError, match="has changed since the render was planned"):
        next(nearest_cells(source, 3, 4))


def means(x_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same by the share of every pixel in every cell."""

    def shares(number: int, length: int) -> np.ndarray:
        edges = np.arange(number + 1) * length / number
        starts = np.maximum.outer(edges[:-1], np.arange(length))
        stops = np.minimum.outer(edges[1:], np.arange(1, length + 1))
        return np.maximum(stops - starts, 0) * number / length

    return shares(height, x_HW.shape[0]) @ x_HW @ shares(width, x_HW.shape[1]).T


@pytest.mark.parametrize("size", [(300, 7), (13, 11), (64, 32), (700, 40), (1, 1)])
def test_cells_are_means_by_area(size: tuple[int, int]) -> None:
    x_HW = np.random.default_rng(0).random((300, 77)).astype(np.float32)
    assert np.abs(area_means(x_HW, *size) - means(x_HW, *size)).max() < 1e-6
    for value in (0.0, 1.0):  # exactly: what is black or white is one prompt's alone
        assert set(np.unique(area_means(np.full((301, 77), value, np.float32), *size))) == {value}


def test_grey_is_as_it_is_and_colours_count_by_their_luma(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 1], pixels[:, 2], pixels[:, 3] = 51, 255, (0, 255, 0)
    (row, _) = cells(look(saved(tmp_path, pixels), "edit", num_frames=1), 2, 4)[0]
    assert row.tolist() == pytest.approx([0, 0.2, 1, 0.7152], abs=1e-6)
    grey_HWC = np.linspace(0, 1, 9, dtype=np.float32)[:, None, None].repeat(3, 2)
    assert np.array_equal(luma(grey_HWC), grey_HWC[..., 0])
