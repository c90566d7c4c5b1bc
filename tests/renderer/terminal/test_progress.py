"""How a render is shown: measured pace, throttled lines, bars, JSON lines, warnings as notes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from frieze.renderer.events import Event
from frieze.renderer.monitoring.time_left import Left
from frieze.renderer.terminal import progress
from frieze.renderer.terminal.progress import Bars, JsonLines, Lines, Pace, Progress, choose


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(number: int, total: int = 10, seconds: float = 0.0) -> Event:
    return Event("step", stage=2, num_stages=3, step=number, num_steps=total, seconds=seconds)


def block(number: int, total: int = 4) -> Event:
    return Event("block", stage=3, num_stages=3, blocks=number, num_blocks=total)


def test_one_stall_is_not_the_pace() -> None:
    pace = Pace(Clock())
    assert str(pace) == ""
    for number, seconds in enumerate((2.0, 2.0, 50.0), 1):
        pace.count(number, seconds)
    assert pace.seconds == 2.0


def test_without_a_measured_time_the_clock_is_asked() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.restart(done=4)
    clock.now = 6.0
    pace.count(7)
    assert pace.seconds == 2.0


def test_lines_are_throttled_but_the_last_is_always_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    show = Lines(every=5.0, clock=clock)
    show(Event("stage", stage=2, num_stages=3, num_steps=10, message="512x512"))
    for number in range(1, 11):
        clock.now += 1.0
        show(step(number, seconds=1.0))
    assert capsys.readouterr().err.splitlines() == [
        "stage 2/3 512x512",
        "stage 2/3: step 1/10, 1.00 s each",
        "stage 2/3: step 6/10, 1.00 s each",
        "stage 2/3: step 10/10, 1.00 s each",
    ]


def test_time_left_is_what_the_event_tells(capsys: pytest.CaptureFixture[str]) -> None:
    show = Lines(every=0.0, clock=Clock())
    for number, left in ((9, Left(73.0, "about")), (10, Left(0.0))):
        show(replace(step(number, seconds=1.0), facts=left.facts()))
    assert capsys.readouterr().err.splitlines() == [
        "stage 2/3: step 9/10, 1.00 s each, about 1:13 left",
        "stage 2/3: step 10/10, 1.00 s each",
    ]


def test_a_resumed_stage_counts_only_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    show = Lines(clock=clock)
    show(Event("decode", blocks=2, num_blocks=4))
    clock.now = 3.0
    show(block(3))
    assert capsys.readouterr().err.splitlines()[-1] == "decode: block 3/4, 3.00 s each"


@pytest.mark.parametrize("make", [Lines, Bars])
def test_a_whole_render_is_told(
    make: Callable[[], Progress],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with make() as show:
        show(Event("stage", stage=2, num_stages=3, num_steps=10, message="512x512"))
        show(step(10, seconds=0.25))
        show(Event("decode", num_blocks=4))
        show(replace(block(4), facts={"left": 65.0, "left_is": "about"}))
        show(Event("note", message="[no markup]"))
        show(Event("export", message="a.tif"))
        show(Event("done", seconds=65))
    out, err = capsys.readouterr()
    assert out == ""
    for part in (
        "stage 2/3",
        "512x512",
        "step 10/10",
        "0.25 s",
        "about 1:05 left",
        "block 4/4",
        "[no markup]",
    ):
        assert part in err
    assert "writing a.tif\n" in err
    assert "done in 1:05\n" in err


def test_the_newest_bar_alone_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show = Bars()
    show(Event("stage", stage=1, num_stages=3, num_steps=10, message="256x256"))
    show(replace(step(10, seconds=0.25), facts={"left": 65.0}))
    assert [task.fields["pace"] for task in show._bars.tasks] == ["0.25 s/step · 1:05 left"]
    show(Event("stage", stage=2, num_stages=3, num_steps=10, message="512x512"))
    show(replace(step(1, seconds=0.5), facts={"left": 60.0}))
    paces = [task.fields["pace"] for task in show._bars.tasks]
    assert paces == ["0.25 s/step", "0.50 s/step · 1:00 left"]


def test_json_lines_hold_what_was_said_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines()(step(3))
    assert json.loads(capsys.readouterr().out) == {
        "event": "step",
        "stage": 2,
        "num_stages": 3,
        "step": 3,
        "num_steps": 10,
    }


def test_facts_stand_beside_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines()(Event("save", step=3, facts={"bytes": 4096}))
    assert json.loads(capsys.readouterr().out) == {"event": "save", "step": 3, "bytes": 4096}


def test_lines_keep_silent_about_saves_and_say_once_what_a_failure_led_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Lines(every=0.0)
    show(Event("save", step=3, num_steps=4))
    show(Event("failure", message="rank 1 was lost"))
    show(Event("recovered", message="rank 1 was lost; 2 workers go on with step 4"))
    assert capsys.readouterr().err == "rank 1 was lost; 2 workers go on with step 4\n"


def test_warnings_are_notes_while_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("frieze.kernels")
    with JsonLines():
        log.warning("fell back to %s", "reference")
        log.info("unheard")
    note = {"event": "note", "message": "fell back to reference"}
    assert json.loads(capsys.readouterr().out) == note
    assert logging.getLogger("frieze").handlers == []


@pytest.mark.parametrize("kind", ["plan", "note"])
def test_a_plan_or_a_remark_is_no_work_yet(kind: str) -> None:
    show = Progress()
    show(Event(kind))  # type: ignore[arg-type]
    assert not show.began
    show(step(1))
    assert show.began


@pytest.mark.parametrize(
    ("json", "quiet", "terminal", "kind"),
    [
        (False, False, True, Bars),
        (False, False, False, Lines),
        (True, False, True, JsonLines),
        (True, True, True, Progress),
        (False, True, False, Progress),
    ],
)
def test_bars_are_for_terminals_only(
    monkeypatch: pytest.MonkeyPatch, json: bool, quiet: bool, terminal: bool, kind: type
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    assert type(choose(json=json, quiet=quiet)) is kind
