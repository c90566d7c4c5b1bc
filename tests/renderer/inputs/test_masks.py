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
from frieze.renderer.inputs.masks import check_shape, nearest_cells
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
