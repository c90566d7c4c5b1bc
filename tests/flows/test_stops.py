"""Whatever a command is busy with, a signal ends it in one line, and its work can be finished."""

from __future__ import annotations

import pytest

from support.kills import Kills
from support.s3_server import S3Server
from support.stops import one, stops

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    return Kills(tmp_path_factory.mktemp("stops"))


@pytest.mark.parametrize("number", range(len(stops())), ids=list(map(str, stops())))
def test_a_stopped_command_says_so_in_one_line_and_is_finished(
    kills: Kills, s3: S3Server, number: int
) -> None:
    ending = one(kills, stops()[number], number)
    assert not ending.faults, ending.row()
