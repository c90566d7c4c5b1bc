"""Every export found in `renderer/exports` keeps the contract, for pictures, clips or both."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from contracts import export as contract
from frieze.renderer import plugins

PAIRS = [
    (plugins.load("exports", name), kind) for name in contract.NAMES for kind in contract.KINDS
]
TAKEN = [pair for pair in PAIRS if contract.takes(*pair)]
OTHERS = [pair for pair in PAIRS if not contract.takes(*pair)]


def name(value: object) -> str | None:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else None


def pictures_and_clips(pairs: list[tuple[ModuleType, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("export", "kind"), pairs, ids=name)


def test_every_format_takes_pictures_or_clips() -> None:
    assert {export.__name__ for export, _ in TAKEN} == {export.__name__ for export, _ in PAIRS}
    assert {kind for _, kind in TAKEN} == set(contract.KINDS)


def in_turns(shapes: list[tuple[tuple[int, int], tuple[int, int]]]) -> pytest.MarkDecorator:
    """Each shape in 8 bits or in 16, and in the others in `make test-all`."""
    cases = [
        pytest.param(size, block, bits, marks=[pytest.mark.slow] * ((index + bits // 8) % 2))
        for index, (size, block) in enumerate(shapes)
        for bits in (16, 8)
    ]
    return pytest.mark.parametrize(("size", "block", "bits"), cases)


@in_turns(
    [
        ((1000, 744), (256, 256)),
        ((65, 1), (64, 64)),
        ((700, 33), (512, 33)),
        ((520, 530), (512, 512)),
    ],
)
@pictures_and_clips([pair for pair in TAKEN if pair[1] == "picture"])
def test_every_pixel_of_a_picture_is_kept(
    export: ModuleType,
    kind: str,
    tmp_path: Path,
    size: tuple[int, int],
    block: tuple[int, int],
    bits: int,
) -> None:
    contract.keeps_every_pixel(export, kind, tmp_path, size, block, bits)


@in_turns([((96, 80), (32, 80)), ((66, 274), (64, 128)), ((272, 18), (512, 512))])
@pictures_and_clips([pair for pair in TAKEN if pair[1] == "clip"])
def test_every_frame_of_a_clip_is_kept(
    export: ModuleType,
    kind: str,
    tmp_path: Path,
    size: tuple[int, int],
    block: tuple[int, int],
    bits: int,
) -> None:
    contract.keeps_every_pixel(export, kind, tmp_path, size, block, bits)


@pictures_and_clips(OTHERS)
def test_what_a_format_cannot_hold_is_refused(
    export: ModuleType, kind: str, tmp_path: Path
) -> None:
    contract.takes_nothing_else(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_an_existing_file_is_replaced_only_when_told(
    export: ModuleType, kind: str, tmp_path: Path
) -> None:
    contract.replaces_only_when_told(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_of_two_exports_to_one_name_one_is_refused(
    export: ModuleType, kind: str, tmp_path: Path
) -> None:
    contract.refuses_one_of_two(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_a_stranger_is_never_replaced(export: ModuleType, kind: str, tmp_path: Path) -> None:
    contract.never_replaces_a_stranger(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_nothing_is_left_after_an_error(export: ModuleType, kind: str, tmp_path: Path) -> None:
    contract.leaves_nothing_after_an_error(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_a_store_that_is_being_drawn_is_followed(
    export: ModuleType, kind: str, tmp_path: Path
) -> None:
    contract.follows_a_store_that_is_being_drawn(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_the_file_says_what_drew_it(export: ModuleType, kind: str, tmp_path: Path) -> None:
    contract.says_what_drew_it(export, kind, tmp_path)


@pictures_and_clips(TAKEN)
def test_the_same_content_makes_the_same_file(
    export: ModuleType, kind: str, tmp_path: Path
) -> None:
    contract.makes_the_same_file_twice(export, kind, tmp_path)
