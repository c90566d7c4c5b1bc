"""Where the ranks of a Ray meet: on one host nobody outside can reach them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from frieze.cluster import ray_fleet
from frieze.cluster.ray_fleet import RayFleet
from frieze.cluster.seat import Place


@pytest.mark.parametrize(
    ("is_private", "address"), [(True, "127.0.0.1"), (False, "192.0.2.7")], ids=["own", "control"]
)
def test_ranks_of_a_ray_of_our_own_meet_on_the_loopback(
    monkeypatch: pytest.MonkeyPatch, is_private: bool, address: str
) -> None:
    asked: list[Any] = []
    told: dict[int, Any] = {}

    def answer(name: str, where: str, **_: object) -> int:
        asked.append((name, where))
        return 4711

    fleet: Any = SimpleNamespace(
        _crew=SimpleNamespace(members=[SimpleNamespace(answer=answer)]),
        _places=(Place(0, "192.0.2.7", 1, "cpu"),),
        _seat=lambda members: None,
        _collect=lambda verb, jobs, limit: told.update(jobs),
        _number=0,
        _group={},
        size=2,
    )
    monkeypatch.setattr(ray_fleet, "is_private", lambda: is_private)
    RayFleet._meet(fleet, [])
    assert asked == [("free_port", address)]
    assert {job[1][3]["address"] for job in told.values()} == {address}
    assert {job[1][3]["port"] for job in told.values()} == {4711}
