"""Whatever happens to a render, its pixels are the same: the kill drill as a test."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from drawing import draw, pixels
from drill import SMALL, drill

NUM_RENDERS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ray_cluster: int) -> np.ndarray:
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    draw(path, **SMALL)
    return pixels(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(NUM_RENDERS))
def test_a_render_with_a_fault_ends_with_the_same_pixels(
    tmp_path: Path, whole: np.ndarray, number: int
) -> None:
    print(drill(number, tmp_path, whole, random.Random(number)).row())
