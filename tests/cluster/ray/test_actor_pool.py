"""The first workers of a fleet: one that dies as it starts is replaced, other failures are told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from frieze.cluster.fleet import FleetError
from frieze.cluster.ray.actor_pool import MOST_STARTS, ActorPool, Member
from frieze.cluster.ray.worker_actor import version

pytestmark = pytest.mark.ray  # whose actors are defined, and none is started

DIED = ray.exceptions.ActorDiedError()
FAILED = ray.exceptions.RayActorError("a module is missing", actor_init_failed=True)


class Started(Member):
    """A member whose process answers, or ends with an error."""

    end: Exception | None = None

    def answer(self, method: str, *args: Any, seconds: float, who: str) -> Any:
        if self.end:
            raise FleetError(f"{who} did not start: {self.end}") from self.end
        return "127.0.0.1", 0, "node", version()


class Pool(ActorPool):
    """Its actors end as they are told to, one after another."""

    def __init__(self, ends: Iterator[Exception | None]) -> None:
        super().__init__("pool", SimpleNamespace(), {}, ())  # type: ignore[arg-type]
        self.ends, self.hired, self.dismissed = ends, [], []  # type: ignore[var-annotated]

    def hire(self, bundle: Any) -> Member:
        member = Started(bundle, None)
        member.end = next(self.ends)
        self.hired.append(member)
        return member

    def dismiss(self, members: list[Member]) -> None:
        self.dismissed += members


def test_one_that_dies_as_it_starts_is_replaced_in_its_place() -> None:
    pool = Pool(iter([None, DIED, DIED, None]))
    pool.fill(["left", "right"], 1.0)  # type: ignore[list-item]
    assert [member.bundle for member in pool.members] == ["left", "right"]
    assert pool.members == [pool.hired[0], pool.hired[3]]
    assert pool.dismissed == pool.hired[1:3]


@pytest.mark.parametrize(
    ("end", "starts"),
    [(DIED, MOST_STARTS), (FAILED, 1), (ray.exceptions.RayTaskError("f", "", ""), 1)],
)
def test_what_fails_again_is_told(end: Exception, starts: int) -> None:
    pool = Pool(iter([end] * 9))
    with pytest.raises(FleetError, match="rank 0 did not start"):
        pool.fill(["left"], 1.0)  # type: ignore[list-item]
    assert len(pool.hired) == starts
