"""How a batch is shown: lines, JSON lines, a table."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console

from frieze.renderer import ItemEvent
from frieze.renderer.events import Event
from frieze.renderer.monitoring.time_left import Left
from frieze.renderer.terminal.batch_progress import JsonRoster, LineRoster, TableRoster, choose

STEP = Event("step", stage=1, num_stages=2, step=3, num_steps=4)
LATE = Event(**{**vars(STEP), "facts": {"left": 7.0, "left_is": "about"}})
TOLD = [
    *(ItemEvent(name, "queued") for name in "abc"),
    ItemEvent("a", "running"),
    ItemEvent("a", "running", Event("note", message="encoding the prompt")),
    ItemEvent("a", "running", STEP),
    ItemEvent("b", "failed", error="it does not fit"),
    ItemEvent("a", "queued", error="a worker was lost"),
    ItemEvent("a", "running"),
    ItemEvent("a", "done", seconds=65.0),
]


def test_lines_tell_ends_and_retries_and_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    roster = LineRoster(every=5.0, clock=lambda: now)
    with roster:
        for event in TOLD:
            roster.item(event)
        now = 10.0
        roster.item(ItemEvent("c", "running", LATE, left=Left(65.0, "about")))
        roster.item(ItemEvent("c", "running", STEP))
        logging.getLogger("frieze.renderer").warning("slow")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[1/3] b: failed: it does not fit",
        "[1/3] a: to be tried again: a worker was lost",
        "[2/3] a: done in 1:05",
        "[2/3, about 1:05 left] c: stage 1/2, step 3/4, about 0:07 left",
        "slow",
    ]


def test_json_lines_tell_all(capsys: pytest.CaptureFixture[str]) -> None:
    roster = JsonRoster()
    for event in (ItemEvent("a", "running", LATE, left=Left(65.0, "about")), *TOLD):
        roster.item(event)
    out, err = capsys.readouterr()
    told, _, out = out.partition("\n")
    whole = {"item": "a", "batch_left": 65.0, "batch_left_is": "about"}
    assert json.loads(told) == LATE.as_json() | whole
    lines = [json.loads(line) for line in out.splitlines()]
    assert (len(lines), err) == (len(TOLD), "")
    assert [line["item"] for line in lines[:3]] == ["a", "b", "c"]
    assert lines[-1] == {"event": "item", "item": "a", "state": "done", "seconds": 65.0}


def test_the_table_shows_what_runs_and_what_ended() -> None:
    roster = TableRoster()
    late = ItemEvent("c", "running", LATE, left=Left(3600.0))
    for event in (*TOLD, ItemEvent("c", "running"), late):
        roster.item(event)
    page = io.StringIO()
    Console(file=page, width=100).print(roster.table())
    shown = page.getvalue()
    for part in (
        *(
            "1 done, 1 failed, 1 running, 0 queued, 1:00:00 left",
            "failed: it does not fit",
            "done in 1:05",
        ),
        "stage 1/2, step 3/4, about 0:07 left",
    ):
        assert part in shown
    assert shown.count("\n") < 10


def test_nothing_is_shown_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    roster = choose(json=False, quiet=True)
    for event in TOLD:
        roster.item(event)
    assert capsys.readouterr() == ("", "")
    assert isinstance(choose(json=True, quiet=False), JsonRoster)
    assert isinstance(choose(json=False, quiet=False), LineRoster)
