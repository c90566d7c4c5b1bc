"""How long it still takes: by a clock that is told, for renders and batches that go as planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from frieze.renderer.batches.time_left import BatchTimeLeft
from frieze.renderer.events import Event
from frieze.renderer.monitoring import run_log
from frieze.renderer.monitoring.durations import span
from frieze.renderer.monitoring.observers import EventFanout, of_plan
from frieze.renderer.monitoring.time_left import Left, TimeLeft, of_facts, stages, whole_cost
from frieze.renderer.planning.plan import plan
from support.drawing import CASCADE, small_spec


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


STAGE = st.fixed_dictionaries(
    {
        "size": st.just([64, 64]),
        "steps": st.integers(1, 5),
        "cost": st.floats(1e8, 1e12),
        "begin_cost": st.just(0.0) | st.floats(1e8, 1e12),
    }
)
PLAN = st.fixed_dictionaries(
    {"stages": st.lists(STAGE, min_size=1, max_size=3), "decoding_cost": st.floats(1e8, 1e13)}
)


def course(
    facts: Any, blocks: int, unit: float, first: tuple[int, int] = (0, 0)
) -> Iterator[tuple[float, Event]]:
    """(seconds before it, event) of a render from a stage and step on that goes as it was planned.

    Decoding takes as long for each block.
    """
    yield 0.0, Event("plan", facts=facts)
    for number, stage in enumerate(facts["stages"][first[0] :], first[0]):
        begun = first[1] if number == first[0] else 0
        at = {"stage": number + 1, "num_steps": stage["steps"]}
        yield unit * stage["begin_cost"] * (number > first[0]), Event("stage", step=begun, **at)
        for step in range(begun, stage["steps"]):
            seconds = unit * stage["cost"]
            told = Event("step", step=step + 1, seconds=seconds * 0.9, **at)
            yield seconds, Event(**{**vars(told), "facts": {"driver": seconds * 0.1}})
    yield 0.0, Event("decode", num_blocks=blocks)
    for done in range(1, blocks + 1):
        seconds = unit * facts["decoding_cost"] / blocks
        yield seconds, Event("block", blocks=done, num_blocks=blocks, facts={"rank": 0})


@settings(deadline=None, max_examples=60, phases=(Phase.explicit, Phase.generate))
@given(
    facts=PLAN,
    blocks=st.integers(1, 6),
    unit=st.floats(1e-10, 1e-6),
    data=st.data(),
)
def test_where_all_goes_as_planned_the_time_left_is_what_it_will_take(
    facts: Any, blocks: int, unit: float, data: st.DataObject
) -> None:
    """And so it only falls, by what has passed; a resume counts what it has to do alone."""
    stage = data.draw(st.integers(0, len(facts["stages"]) - 1))
    first = (stage, data.draw(st.integers(0, facts["stages"][stage]["steps"] - 1)))
    events = list(course(facts, blocks, unit, first))
    total = sum(seconds for seconds, _ in events)
    clock, before = Clock(), None
    left = TimeLeft(clock)
    for seconds, event in events:
        clock.now += seconds
        found = left(event)
        if event.kind == "plan" or (event.kind == "stage" and event.stage == first[0] + 1):
            assert found is None
            continue
        assert found is not None
        assert found.seconds == pytest.approx(total - clock.now, rel=1e-6, abs=total * 1e-6)
        assert before is None or found.seconds < before or seconds == 0
        before = found.seconds
        is_measured = event.kind == "block" and (event.blocks > 1 or blocks == 1)
        assert found.sureness == ("" if is_measured else "about")
    assert before == 0.0


def test_control_what_takes_longer_than_planned_is_seen() -> None:
    stage = {"size": [64, 64], "steps": 4, "cost": 1e9, "begin_cost": 0.0}
    facts = {"stages": [stage], "decoding_cost": 1e9}
    left, told = TimeLeft(Clock()), []
    for number, (_, event) in enumerate(course(facts, 1, 1e-9)):
        slow = Event(**{**vars(event), "seconds": event.seconds * 3})
        told.append(left(slow if number > 2 else event))
    assert told[2] == Left(pytest.approx(4.0), "about")
    assert told[4].seconds > 2.5


def test_one_stall_does_not_count_and_a_smaller_fleet_does() -> None:
    facts = {"stages": [{"size": [64, 64], "steps": 9, "cost": 1e9}], "decoding_cost": 0.0}
    left = TimeLeft(Clock())
    left(Event("plan", facts=facts))
    for step, seconds in enumerate((2.0, 2.0, 50.0), 1):
        found = left(Event("step", stage=1, step=step, num_steps=9, seconds=seconds))
    assert found == Left(12.0, "at least")  # nobody can say what decoding takes
    again = left(Event("recovered", stage=1, step=1, num_steps=9))
    assert again == Left(16.0, "at least")
    left(Event("resized", stage=1, step=3, num_steps=9))
    found = left(Event("step", stage=1, step=4, num_steps=9, seconds=4.0))
    assert found == Left(20.0, "at least")


def test_what_a_step_takes_whatever_it_computes_is_seen_from_two_stages_on() -> None:
    """Steps that take 1 s and 1 s more for each 1e9 operations."""
    costs = (1e9, 3e9, 9e9)
    facts = {"stages": [{"size": [64, 64], "steps": 2, "cost": cost} for cost in costs]}
    left = TimeLeft(Clock())
    left(Event("plan", facts=facts))
    told = [
        left(Event("step", stage=stage, step=step, num_steps=2, seconds=1 + costs[stage - 1] / 1e9))
        for stage in (1, 2, 3)
        for step in (1, 2)
    ]
    assert [found and found.seconds for found in told] == [
        *(pytest.approx(seconds) for seconds in (2 + 12 + 36, 12 + 36)),  # in proportion
        *(pytest.approx(seconds) for seconds in (4 + 20, 20, 10, 0)),
    ]


def test_what_comes_before_the_first_blocks_is_not_the_pace_of_the_rest() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left(Event("decode", num_blocks=6)) is None
    told = []
    # Two ranks: what both have in common takes 10 s, each block then 1 s.
    for seconds, rank in ((10, 0), (0, 1), (1, 0), (0, 1), (1, 0), (0, 1)):
        clock.now += seconds
        told.append(left(Event("block", blocks=len(told) + 1, num_blocks=6, facts={"rank": rank})))
    assert told[:2] == [None, None]
    assert told[3:] == [Left(1.0), Left(pytest.approx(2 / 3)), Left(0.0)]


def test_plans_are_weighed_by_what_they_compute(tmp_path: Path) -> None:
    made = plan(small_spec(tmp_path / "a.zarr", **CASCADE))
    first, last = stages(made)
    # Twice the side: four times the tokens, and attention over them grows with their square.
    assert 4 * first["cost"] < last["cost"] < 16 * first["cost"]
    assert first["begin_cost"] == 0 < last["begin_cost"]
    whole = whole_cost(made)
    assert whole > 3 * (first["cost"] + last["cost"])
    facts = of_plan(made, resumes=False)
    told: list[Event] = []
    watch = EventFanout(told.append)
    for _, event in course(facts, 4, 1e-12):
        watch(event)
    assert [of_facts(event.facts) is None for event in told][:3] == [True, True, False]
    assert told[2].facts["left"] > 0
    assert told[2].facts["left_is"] == "about"
    assert told[-1].facts["left"] == 0.0


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (Left(65.0), "1:05 left"),
        (Left(7380, "about"), "about 2:03:00 left"),
        (Left(0.4, "at least"), "at least 0:00 left"),
    ],
)
def test_it_is_told_with_how_sure_it_is(left: Left, text: str) -> None:
    assert str(left) == text
    assert of_facts(left.facts()) == left
    assert span(left.seconds) in text


@pytest.mark.parametrize("told", ["null", '"soon"', "-1", "true", "[]", "NaN", "1e999", "1e300"])
def test_nonsense_in_a_strangers_log_tells_no_time(tmp_path: Path, told: str) -> None:
    (tmp_path / "frieze").mkdir()
    line = '{{"time": 1, "event": "step", "stage": 1, "step": 1, "seconds": 1, "left": {}}}\n'
    unsure = Left(3) if told in ("null", "NaN", "1e999") else None  # which say nothing
    for known, expected in ((told, None), ("3", Left(3)), (f'3, "left_is": {told}', unsure)):
        (tmp_path / "frieze" / "log.jsonl").write_text(line.format(known))
        found = [of_facts(fields) for fields in run_log.read(tmp_path)]
        assert found in ([expected], [expected] * (expected is not None)), known


def test_a_batch_goes_by_its_items() -> None:
    clock = Clock()
    left = BatchTimeLeft({"a": (100.0, 2), "b": (100.0, 2), "c": (200.0, 2), "d": (50.0, 1)}, clock)
    for name in "abcd":
        assert left(name, "queued", None, 0.0) is None
    assert left("a", "running", None, 0.0) is None
    clock.now = 4.0
    step = Event("step", facts={"left": 6.0})
    found = left("a", "running", step, 0.0)  # so an operation takes 0.1 s
    assert found == Left(pytest.approx(6 / 2 + 10 / 2 + 20 / 2 + 5), "about")
    left("b", "running", None, 0.0)
    clock.now = 10.0
    assert left("a", "done", None, 10.0) == Left(pytest.approx(4 / 2 + 20 / 2 + 5), "about")
    assert left("c", "failed", None, 1.0) == Left(pytest.approx(4 / 2 + 5), "about")
    assert left("b", "queued", None, 0.0) == Left(pytest.approx(10 / 2 + 5), "about")
    left("b", "done", None, 10.0)
    assert left("d", "done", None, 5.0) == Left(0.0)
    assert left("done before", "done", None, 0.0) == Left(0.0)


def test_a_batch_that_goes_as_planned_only_gets_shorter() -> None:
    clock, before = Clock(), None
    costs = {f"item-{number}": (10.0 * number, 1) for number in range(1, 7)}
    left = BatchTimeLeft(costs, clock)
    for name, (cost, _) in costs.items():
        left(name, "running", None, 0.0)
        for quarter in (1, 2, 3):
            clock.now += cost / 4
            found = left(
                name, "running", Event("step", facts={"left": cost - cost * quarter / 4}), 0
            )
            assert found is not None
            assert before is None or found.seconds < before
            before = found.seconds
        clock.now += cost / 4
        found = left(name, "done", None, cost)
        assert found is not None
        assert found.seconds == pytest.approx(sum(c for c, _ in costs.values()) - clock.now)
