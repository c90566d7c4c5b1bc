"""What the journal names counts, and nothing else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.store import State, Store


def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    store.journal.append({"event": "state", "stage": 0, "step": 3, "slot": 1})
    with store.journal.path.open("ab") as file:
        file.write(b'{"event":"state","stage":0,"st')
    again = Store.open(store.path)
    assert again.last_state() == State(stage=0, step=3, slot=1)
    again.journal.append({"event": "state", "stage": 0, "step": 4, "slot": 0})
    assert again.last_state() == State(stage=0, step=4, slot=0)
    assert store.journal.path.read_text().count("\n") == 2


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    lines = store.journal.path.read_bytes().splitlines(keepends=True)
    store.journal.path.write_bytes(b"nonsense\n" + b"".join(lines))
    with pytest.raises(StoreError, match="line 1"):
        store.journal.read()


def test_only_blocks_in_the_journal_count(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    ids = store.write_rows(0, picture(32, 64))
    assert store.done() == frozenset()
    for block in ids:
        store.journal.append({"event": "block", "id": block})
    assert store.done() == frozenset(ids)
    assert store.covers(store.done(), 31)
    assert not store.covers(store.done(), 32)
    with pytest.raises(StoreError, match="2 of 4"):
        store.finish()


def test_a_journal_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="No space"):
            store.journal.append({"event": "note"})
    store.journal.path.write_bytes(store.journal.path.read_bytes() + b'{"event":"to')
    store.journal.append({"event": "block", "id": "0/0"})
    assert store.done() == {"0/0"}


def test_every_event_says_when_it_happened(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    before = time.time()
    store.journal.append({"event": "block", "id": "0/0"})
    (*_, event) = store.journal.read()
    assert event == {"event": "block", "id": "0/0", "time": event["time"]}
    assert before - 0.001 <= event["time"] <= time.time() + 0.001
