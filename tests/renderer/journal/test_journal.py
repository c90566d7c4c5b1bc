"""What the journal names counts, and nothing else does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.journal.checksums import sealed
from frieze.renderer.journal.inventory import SavedState
from frieze.renderer.store.layout import LatentArray
from frieze.renderer.store.store import Store
from support.stores import aged

LATENTS = (LatentArray("0", (2, 4, 1, 24, 10), 8),)


def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path: Path) -> None:
    shape = (picture(64, 64), (32, 32), LATENTS)
    store = make_store(tmp_path / "a.zarr", *shape, finish=False)
    store.journal.append({"event": "state", "stage": 0, "step": 3, "slot": 1})
    with store.journal.path.open("ab") as file:
        file.write(b'{"event":"state","stage":0,"st')
    again = Store.open(store.path)
    assert again.last_state() == SavedState(stage=0, step=3, slot=1)
    again.journal.append({"event": "state", "stage": 0, "step": 4, "slot": 0})
    assert again.last_state() == SavedState(stage=0, step=4, slot=0)
    assert store.journal.path.read_text().count("\n") == 2


def test_a_broken_line_counts_for_nothing_and_is_an_error_where_there_are_no_checksums(
    tmp_path: Path,
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    with store.journal.path.open("r+b") as file:
        file.write(b"nonsense")
    assert store.journal.damaged() == ["line 1"]
    assert store.done() == frozenset(), "the first line told of all blocks"
    assert store.is_complete
    old = Store.open(aged(make_store(tmp_path / "b.zarr", picture(64, 64), (32, 32)).path))
    with old.journal.path.open("r+b") as file:
        file.write(b"nonsense")
    with pytest.raises(StoreError, match="line 1 is no event"):
        old.journal.read()


STATE = {"event": "state", "stage": 0, "step": 3, "slot": 1}
DAMAGED: list[bytes] = [
    json.dumps(sealed(STATE) | {"slot": 0}).encode(),
    json.dumps(sealed(STATE) | {"step": 2}).encode(),
    json.dumps(STATE).encode(),
    json.dumps(sealed({"event": "state", "stage": 0, "step": 3})).encode(),
    json.dumps(sealed(STATE | {"slot": "1"})).encode(),
    json.dumps(sealed(STATE | {"step": 10**30})).encode(),
    json.dumps(sealed(STATE | {"time": None})).encode(),
    json.dumps(sealed({"event": "block", "ids": ["../../x"]})).encode(),
    json.dumps(sealed({"event": ["state"]})).encode(),
    json.dumps(sealed(STATE | {"nobody_reads": float("nan")})).encode(),
    json.dumps(sealed(STATE), ensure_ascii=False).replace("state", "st\xe9te").encode("latin-1"),
    b'{"event":' + b"[" * 10**5,
    b'{"event": "state", "stage": ' + b"1" * 10**4 + b"}",
    b"[]",
    b"",
]


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:60].decode("latin-1"))
def test_a_line_that_is_not_what_was_written_counts_for_nothing(
    tmp_path: Path, line: bytes
) -> None:
    shape = (picture(64, 64), (32, 32), LATENTS)
    store = make_store(tmp_path / "a.zarr", *shape, finish=False)
    store.journal.append(STATE | {"step": 1})
    with store.journal.path.open("ab") as file:
        file.write(line + b"\n")
    store.journal.append({"event": "note"})
    again = Store.open(store.path)
    assert again.last_state() == SavedState(0, 1, 1)
    assert [event["event"] for event in again.journal.read()] == ["state", "note"]
    assert again.journal.damaged() == ["line 2"]
    again.journal.append({"event": "lost", "lines": ["line 2"]})
    assert again.journal.damaged() == []


@pytest.mark.parametrize("line", [DAMAGED[3], DAMAGED[4], DAMAGED[7], DAMAGED[10]])
def test_a_line_of_old_that_says_too_little_is_one_clear_error(tmp_path: Path, line: bytes) -> None:
    store = Store.open(aged(make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32)).path))
    with store.journal.path.open("ab") as file:
        file.write(line + b"\n" + json.dumps({"event": "note"}).encode() + b"\n")
    with pytest.raises(StoreError, match="line 3 is no event"):
        store.journal.read()


def test_control_any_line_of_old_counts(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), LATENTS, finish=False).path
    store = Store.open(aged(path))
    with store.journal.path.open("ab") as file:
        file.write(json.dumps(STATE).encode() + b"\n")
    assert store.last_state() == SavedState(0, 3, 1)


def test_a_state_without_what_its_first_step_measured_is_none(tmp_path: Path) -> None:
    shape = (picture(64, 64), (32, 32), LATENTS)
    store = make_store(tmp_path / "a.zarr", *shape, finish=False)
    store.journal.append(STATE | {"focus": True})
    assert store.last_state() is None
    store.journal.append({"event": "focus", "stage": 0, "entropies": [{"layer": [0.5]}]})
    assert store.last_state() == SavedState(0, 3, 1)


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
