"""Fleets whose ranks take a new worker: the group and what processes keep are still there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, SoloFleet
from support.fleet_workers import Unwilling, Worker
from support.ray_fixture import BASE


@pytest.fixture(params=["threads", "turns", pytest.param("ray", marks=pytest.mark.ray)])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "ray":
        shared: Fleet = request.getfixturevalue("ray_fleet")
        yield shared
        if not shared.has_ended:
            shared.replace_workers(Worker, BASE)
        return
    with LocalFleet.launch(Worker, 2, 10, turns=request.param == "turns") as fleet:
        yield fleet


def test_a_new_worker_finds_the_group_and_none_of_the_old_ones_state(fleet: Fleet) -> None:
    places = fleet.describe()
    fleet.all("remember", 7)
    assert fleet.all("total", 1) == [23, 23]
    for base in (20, 30):
        fleet.replace_workers(Worker, base)
        assert fleet.all("total", 1) == [2 * base + 3] * 2
    with pytest.raises(AttributeError):
        fleet.all("recall")
    assert fleet.describe() == places


def test_one_rank_on_the_drivers_thread_takes_another_worker() -> None:
    with SoloFleet.launch(Worker, 10) as fleet:
        fleet.replace_workers(Worker, 20)
        assert fleet.all("total", 1) == [21]
        assert [place.pid for place in fleet.describe()] == [os.getpid()]


def test_a_worker_that_cannot_be_built_ends_the_fleet() -> None:
    with LocalFleet.launch(Worker, 2, 10) as fleet:
        assert not fleet.has_ended
        with pytest.raises(ValueError, match="no weights here"):
            fleet.replace_workers(Unwilling)
        assert fleet.has_ended
        with pytest.raises(FleetError, match="has ended"):
            fleet.replace_workers(Worker, 10)
