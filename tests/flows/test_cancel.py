"""`cancel` reaches the waits for a fleet: it ends at the next poll, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from frieze.cluster.fleet import LocalFleet, WaitCancelledError, cancelled_by
from frieze.cluster.ray import actor_pool, placement, session
from frieze.cluster.ray.actor_pool import ActorPool, Member
from frieze.cluster.ray.placement import Placement
from frieze.renderer import Event, RenderCancelledError, batch, render, resume
from frieze.renderer.worker.shard import Shard
from support.drawing import draw, pixels, small_spec
from support.fleet_workers import Worker
from tolerances import AMPLE

MOST_POLLS = 2


class Polls:
    """Stands for what a wait asks at every turn; sets the event at the first."""

    def __init__(self, event: threading.Event, answer: Any) -> None:
        self.event, self.answer, self.count = event, answer, 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.count += 1
        assert self.count <= MOST_POLLS, "it waits on"
        self.event.set()
        return self.answer


def room(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve: Any = SimpleNamespace(nodes=polls, _least=2, bundles=[1, 2])
    Placement.wait(reserve, AMPLE)


def a_worker(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "wait", polls)
    monkeypatch.setattr(Member, "ask", lambda *_: "answer")
    Member(None, None).answer("whereabouts", seconds=AMPLE, who="rank 0")  # type: ignore[arg-type]


def another_worker(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    crew: Any = SimpleNamespace(recruit=polls, ready=list, newcomers=[], members=[], trouble="")
    ActorPool.refill(crew, 2, AMPLE, AMPLE)


def a_ray(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def late(**_: Any) -> None:
        polls()
        raise RuntimeError(f"the node {session.LATE}")

    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    session.start()


@pytest.mark.parametrize("wait", [room, a_worker, another_worker, a_ray])
def test_waits_on_ray_end_at_the_next_poll(
    wait: Callable[[Polls, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(actor_pool, "POLL_SECONDS", 0.0)
    cancel = threading.Event()
    answer = {} if wait is room else ([], [])
    with cancelled_by(cancel), pytest.raises(WaitCancelledError, match="stopped as asked"):
        wait(Polls(cancel, answer), monkeypatch)
    cancel.clear()
    with pytest.raises(AssertionError, match="it waits on"):  # control
        wait(Polls(cancel, answer), monkeypatch)


def test_a_verb_is_left_and_the_others_are_not_waited_for(tmp_path: Path) -> None:
    from support.fleet_workers import released

    released.clear()  # another test of this process may have set it
    cancel, begun = threading.Event(), tmp_path / "begun"
    with LocalFleet.launch(Worker, 2, timeout=AMPLE) as fleet:
        with cancelled_by(cancel):
            assert fleet.all("total", 1) == [3, 3]
            threading.Timer(0.05, cancel.set).start()
            with pytest.raises(WaitCancelledError):
                fleet.all("stall", 0, 600.0, str(begun))
        assert fleet.has_ended
        released.set()


@pytest.mark.parametrize("at", ["encoding the prompt", "loading weights"])
def test_a_render_stops_before_its_first_step_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    out, cancel, told, steps = tmp_path / "a.zarr", threading.Event(), [], []
    step = Shard.step

    def listen(event: Event) -> None:
        told.append(event.kind)
        if at in event.message:
            cancel.set()

    def counted(*args: Any) -> Any:
        steps.append(args)
        return step(*args)

    monkeypatch.setattr(Shard, "step", counted)
    spec = small_spec(out, height=64, width=64, workers=2, num_inference_steps=2)
    with pytest.raises(RenderCancelledError, match="stopped as asked") as caught:
        render(spec, on_event=listen, cancel=cancel)
    assert not steps
    assert "step" not in told
    assert "\n" not in str(caught.value)
    if at == "encoding the prompt":
        assert str(caught.value) == "stopped as asked, before any work"
        assert list(tmp_path.iterdir()) == []
        render(spec)
    else:
        assert f"finish with: frieze resume {out}" in str(caught.value)
        resume(out)
    draw(tmp_path / "b.zarr", height=64, width=64, workers=2, num_inference_steps=2)
    assert np.array_equal(pixels(out), pixels(tmp_path / "b.zarr"))


def test_lanes_of_a_batch_stop_where_they_are_and_go_on(tmp_path: Path) -> None:
    cancel = threading.Event()
    jobs = [{"prompt": "a red sun", "size": "64x64", "num_inference_steps": 1, "seed": 1}]

    def listen(event: Any) -> None:
        if event.event is not None and "loading weights" in event.event.message:
            cancel.set()

    run = batch(jobs, out=tmp_path / "suns", local=True, on_event=listen, cancel=cancel)
    with pytest.raises(RenderCancelledError, match="0 of 1 items are done"):
        list(run)
    (done,) = batch(jobs, out=tmp_path / "suns", local=True, continued=True)
    assert done.state == "done", done.error
