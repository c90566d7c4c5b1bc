"""What an actor does of what it is asked, without a Ray: groups follow one another in it."""

from __future__ import annotations

from frieze.cluster.fleet import FleetError
from frieze.cluster.ray.worker_actor import WorkerActor
from support.fleet_workers import Worker


def test_what_was_asked_in_an_earlier_group_is_not_done() -> None:
    """The driver's own guard, as a call that was slow on its way would meet it."""
    actor = WorkerActor()
    actor.prepare(Worker, (10,), None)
    for number in (1, 2):
        assert [report.kind for report in actor.meet(number, 0, 1, None, {})] == ["done"]
        (report,) = actor.job(number, "run", ("remember", (number,), False))
        assert report.kind == "done"
    (late,) = actor.job(1, "run", ("remember", (3,), False))
    assert late.kind == "error"
    assert isinstance(late.value, FleetError)
    assert "group 1 has ended" in str(late.value)
    (now,) = actor.job(2, "run", ("recall", (), False))
    assert now.value == 2, "control: in its own group it answers, and was told nothing since"
