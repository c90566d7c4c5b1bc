"""Whatever moment a command is killed at, its work is finished to the same bytes."""

from __future__ import annotations

import random

import pytest

from support.kills import Kills, differences, kinds

NUM_ROUNDS = 3


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    return Kills(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(NUM_ROUNDS * len(kinds())))
def test_a_killed_command_is_finished_to_the_same_bytes(kills: Kills, number: int) -> None:
    kind = kinds()[number % len(kinds())]
    outcome = kills.one(kind, number, random.Random(number))
    assert not outcome.faults, outcome.row()


def test_what_is_left_behind_or_drawn_otherwise_is_noticed() -> None:
    right = {"a.zarr": "1", "a.tif": "2"}
    assert differences(right, right) == []
    wrong = {"a.zarr": "3", ".a.tif.0a.part": ""}
    assert differences(right, wrong) == [
        "missing: a.tif",
        "left behind: .a.tif.0a.part",
        "other pixels: a.zarr",
    ]
