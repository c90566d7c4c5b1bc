"""Whatever happens to a render, its pixels are the same: the kill drill as a test."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.drill import Wholes, drill

NUM_RENDERS = 40


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory, ray_cluster: int) -> Wholes:
    return Wholes(tmp_path_factory.mktemp("wholes"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(NUM_RENDERS))
@pytest.mark.ray
def test_a_render_with_a_fault_ends_with_the_same_pixels(
    tmp_path: Path, wholes: Wholes, number: int
) -> None:
    print(drill(number, tmp_path, wholes, random.Random(number)).row())
