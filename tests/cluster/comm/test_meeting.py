"""Where the ranks of a Ray meet: in a process of theirs, and on one host out of others' reach."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frieze.cluster.ray import actor_fleet
from frieze.cluster.ray.actor_fleet import RayFleet

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}


@pytest.mark.parametrize(
    ("is_private", "address"), [(True, "127.0.0.1"), (False, None)], ids=["own", "control"]
)
def test_ranks_of_a_ray_of_our_own_listen_on_the_loopback(
    monkeypatch: pytest.MonkeyPatch, is_private: bool, address: str | None
) -> None:
    told: dict[int, Any] = {}
    fleet: Any = SimpleNamespace(
        _pool=SimpleNamespace(members=[SimpleNamespace(actor="first"), SimpleNamespace(actor="2")]),
        _place_ranks=lambda members: None,
        _collect=lambda verb, jobs, limit: told.update(jobs),
        _number=0,
        _group={"timeout": 7.0},
        size=2,
    )
    monkeypatch.setattr(actor_fleet, "is_private", lambda: is_private)
    RayFleet._meet(fleet, [])
    (verb, (number, *_)), _ = told.values()
    assert (verb, number) == ("meet", 1)
    assert [job[1][3] for job in told.values()] == [None, "first"]  # rank 0 keeps what others ask
    for job in told.values():
        *_, how = job[1]
        assert how == {"timeout": 7.0} | ({"address": address} if address else {})


def descendants() -> set[int]:
    """All processes that this one started, and those that they did."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def listening(pids: set[int]) -> list[tuple[str, int]]:
    """(address, port) of all sockets on which these processes take connections."""
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(fd))
    rows = []
    for table in ("tcp", "tcp6"):
        text = Path(f"/proc/net/{table}").read_text(encoding="ascii")
        rows += [line.split() for line in text.splitlines()[1:]]
    places = [
        row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes
    ]
    return [(address, int(port, 16)) for address, port in places]


@pytest.mark.ray
def test_a_ray_of_our_own_listens_on_the_loopback_and_strangers_break_no_fleet(
    ray_fleet: RayFleet,
) -> None:
    assert ray_fleet.all("total", 1) == [23, 23]
    found = listening(descendants())
    assert len(found) > 5, "Ray's own servers, its workers and gloo's"
    assert {address for address, _ in found} <= LOOPBACK
    strangers = []
    for _, port in found:
        stranger = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        with contextlib.suppress(OSError):
            stranger.sendall(b"\0" * 8 + b"\xff" * 1000)
        strangers.append(stranger)
    assert ray_fleet.all("total", 1) == [23, 23]
    for stranger in strangers:
        stranger.close()
