"""Every export found in `renderer/exports` keeps the contract."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from contracts import export as contract
from frieze.renderer import plugins


@pytest.fixture(params=contract.NAMES)
def export(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("exports", request.param)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("size", "block"),
    [
        ((1000, 744), (256, 256)),
        ((65, 1), (64, 64)),
        ((700, 33), (512, 33)),
        ((520, 530), (512, 512)),
    ],
)
def test_every_pixel_is_kept(
    export: ModuleType, tmp_path: Path, size: tuple[int, int], block: tuple[int, int], bits: int
) -> None:
    contract.keeps_every_pixel(export, tmp_path, size, block, bits)


def test_an_existing_file_is_replaced_only_when_told(export: ModuleType, tmp_path: Path) -> None:
    contract.replaces_only_when_told(export, tmp_path)


def test_a_stranger_is_never_replaced(export: ModuleType, tmp_path: Path) -> None:
    contract.never_replaces_a_stranger(export, tmp_path)


def test_nothing_is_left_after_an_error(export: ModuleType, tmp_path: Path) -> None:
    contract.leaves_nothing_after_an_error(export, tmp_path)


def test_a_store_that_is_being_drawn_is_followed(export: ModuleType, tmp_path: Path) -> None:
    contract.follows_a_store_that_is_being_drawn(export, tmp_path)


def test_the_file_says_what_drew_it(export: ModuleType, tmp_path: Path) -> None:
    contract.says_what_drew_it(export, tmp_path)


def test_the_same_picture_makes_the_same_file(export: ModuleType, tmp_path: Path) -> None:
    contract.makes_the_same_file_twice(export, tmp_path)
