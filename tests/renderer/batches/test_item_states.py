"""A batch's journal: what another run finds, and what it refuses to spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer import ItemEvent, ItemResult, SpecError, StoreError
from frieze.renderer.batches.item_states import ItemStates
from frieze.renderer.batches.items import Item, read
from frieze.renderer.events import Event


def three(root: Path, **values: Any) -> tuple[Item, ...]:
    sun = {"prompt": "a red sun", "size": "64x64", **values}
    return read([{**sun, "name": name} for name in "abc"], root, {})


def settled(ledger: ItemStates, name: str, state: Any, error: str | None = None) -> None:
    item = ledger.items[name]
    ledger.enter(name, "running")
    outputs = item.outputs if state == "done" else ()
    ledger.settle(ItemResult(name, state, item.main, outputs, 64, 64, 1.5, 0, error))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a run left that had done a, failed b, and was killed while it drew c."""
    ledger = ItemStates(tmp_path, three(tmp_path))
    ledger.look_back(continued=False)
    ledger.begin()
    (tmp_path / "a.zarr").mkdir()
    settled(ledger, "a", "done")
    settled(ledger, "b", "failed", "the disk is full")
    ledger.enter("c", "running")
    with ledger.journal.path.open("a") as file:
        file.write('{"event":"item","name":"c","sta')
    return tmp_path


def test_another_run_goes_on_where_one_was_killed(left: Path) -> None:
    ledger = ItemStates(left, three(left))
    ledger.look_back(continued=True)
    assert ledger.states == {"a": "done", "b": "queued", "c": "queued"}
    assert ledger.results["a"].seconds == 1.5
    assert [name for name in "abc" if ledger.is_begun(name)] == ["a", "b", "c"]


def test_a_batch_is_not_begun_over_another(left: Path) -> None:
    with pytest.raises(SpecError, match="holds a batch already; use --continue"):
        ItemStates(left, three(left)).look_back(continued=False)


def test_what_was_begun_otherwise_is_not_gone_on_with(left: Path) -> None:
    with pytest.raises(SpecError, match="item 'a' was begun otherwise"):
        ItemStates(left, three(left, seed=5)).look_back(continued=True)
    more = (*three(left), *read([{"prompt": "new", "name": "d", "size": "64x64"}], left, {}))
    ledger = ItemStates(left, more)
    ledger.look_back(continued=True)
    assert ledger.states["d"] == "queued"
    assert not ledger.is_begun("d")


def test_a_picture_that_is_gone_is_drawn_again(left: Path) -> None:
    (left / "a.zarr").rmdir()
    ledger = ItemStates(left, three(left))
    ledger.look_back(continued=True)
    assert ledger.states["a"] == "queued"


def test_the_report_has_every_item_and_the_totals(left: Path) -> None:
    ledger = ItemStates(left, three(left))
    ledger.look_back(continued=True)
    ledger.begin()
    settled(ledger, "b", "failed", "the disk is full")
    about = json.loads(ledger.report("jobs.yaml", 2.0).read_text())
    assert {item["name"]: item["state"] for item in about["items"]} == {
        "a": "done",
        "b": "failed",
        "c": "queued",
    }
    assert about["items"][1]["error"] == "the disk is full"
    assert about["items"][0]["path"] == "a.zarr"
    totals = {"done": 1, "failed": 1, "running": 0, "queued": 1, "items": 3, "retries": 0}
    assert about["totals"] == totals | {"seconds": 2.0}


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    root.mkdir()
    (root / "frieze").symlink_to(tmp_path / "elsewhere")
    ledger = ItemStates(root, three(root))
    ledger.look_back(continued=False)
    with pytest.raises(StoreError, match="leads out of"):
        ledger.begin()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_events_are_lines_of_json() -> None:
    failed = ItemEvent("a", "failed", seconds=1.0, error="no")
    told = json.loads(failed.to_json())
    about = {"event": "item", "item": "a", "state": "failed"}
    assert told == about | {"seconds": 1.0, "error": "no"}
    step = ItemEvent("a", "running", Event("step", step=1, num_steps=2))
    assert json.loads(step.to_json()) == {"event": "step", "step": 1, "num_steps": 2, "item": "a"}
