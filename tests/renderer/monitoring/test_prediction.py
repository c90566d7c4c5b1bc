"""Predicted seconds: the time left follows them, and the end says how far off they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frieze.renderer import Event, RenderSpec, render
from frieze.renderer.costs.device_kinds import Rates, keep, kind_here
from frieze.renderer.monitoring import run_log
from frieze.renderer.monitoring.prediction import Accuracy, of_facts
from frieze.renderer.monitoring.report import report
from frieze.renderer.monitoring.time_left import TimeLeft

PREDICTED = {
    "stages": [{"begin": 1.0, "steps": [2.0, 2.0]}, {"begin": 4.0, "steps": [10.0, 30.0]}],
    "decode": 20.0,
    "total": 69.0,
}
SIZES = [{"size": [64, 64], "steps": 2}, {"size": [128, 128], "steps": 2}]


def step(stage: int, number: int, seconds: float) -> Event:
    return Event("step", stage=stage, step=number, seconds=seconds)


def test_what_is_left_is_what_was_predicted_as_quick_as_the_steps_were() -> None:
    now = [100.0]
    left = TimeLeft(clock=lambda: now[0])
    left(Event("plan", facts={"stages": SIZES, "decoding_cost": 1e9}))
    assert left.left() is None
    left.predict(PREDICTED)
    assert str(left.left()) == "about 1:08 left"  # all but what began the first stage
    left(Event("stage", stage=1))
    for number in (1, 2):  # twice as slow as they were said to be
        now[0] += 4
        left(step(1, number, 4.0))
    found = left.left()
    assert found is not None
    assert found.seconds == pytest.approx(2 * (4 + 10 + 30 + 20))
    left(step(2, 1, 20.0))
    assert left.left().seconds == pytest.approx(2 * (30 + 20))  # type: ignore[union-attr]
    left(step(2, 2, 60.0))
    left(Event("decode", stage=2, num_blocks=4))
    now[0] = 100.0 + 1.5 * 68
    left(Event("block", stage=2, blocks=4, num_blocks=4))
    accuracy = left.accuracy()
    assert accuracy is not None
    assert accuracy.off == pytest.approx(0.5)
    assert str(accuracy) == (
        "steps and decoding took 1:42, 50% more than the 1:08 that were predicted"
    )
    assert of_facts(accuracy.facts()) == accuracy


def test_other_workers_are_another_prediction() -> None:
    left = TimeLeft()
    left(Event("plan", facts={"stages": SIZES}))
    left.predict(PREDICTED)
    left(Event("resized", stage=1, step=1))
    assert left.accuracy() is None


def test_lines_that_tell_nothing_are_passed_over() -> None:
    for facts in ({}, {"accuracy": 3}, {"accuracy": {"predicted": 0.0, "took": 1.0}}):
        assert of_facts(facts) is None
    assert of_facts({"accuracy": {"predicted": 2, "took": 1.0, "off": -0.5}}) == Accuracy(2, 1.0)


def test_a_render_says_how_far_off_it_was_where_rates_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    figures = dict.fromkeys(("matmul", "conv", "attention", "copied", "link"), 1e10)
    times = {"call": 1e-6, "banded_call": 1e-6, "message": 1e-6}
    keep(kind_here("cpu"), "", [Rates(dtype="float32", **figures, **times)])
    events: list[Event] = []
    out = tmp_path / "a.zarr"
    spec = RenderSpec(
        prompt="x",
        height=64,
        width=64,
        num_inference_steps=2,
        device="cpu",
        local=True,
        out=str(out),
    )
    render(spec, on_event=events.append)
    lines = run_log.read(out)
    assert [line["predicted"]["total"] > 0 for line in lines if "predicted" in line] == [True]
    assert json.dumps(lines)
    accuracies = [found for line in lines if (found := of_facts(line))]
    assert len(accuracies) == 1
    assert any("that were predicted" in event.message for event in events)
    page = report(out, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "steps and decoding predicted" in page
