"""What is damaged in a store is seen, and told; what is whole is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.journal.inventory import SavedState
from frieze.renderer.store.directory import store_directory
from frieze.renderer.store.integrity.verification import mend, verify
from frieze.renderer.store.layout import LatentArray
from frieze.renderer.store.store import Store
from support.command_line import frieze
from support.s3_server import BUCKET
from support.stores import aged, flipped

LATENTS = LatentArray("0", (2, 4, 1, 24, 10), 8)
CLEAN = LatentArray("0-clean", LATENTS.shape, 8)
SIDE = 300  # a pyramid of two levels, of which no block owns the second
PICTURE, BLOCK = picture(SIDE, SIDE), (100, 300)
SHAPE = (PICTURE, BLOCK, (LATENTS,))
STATES = [SavedState(0, 1, 0), SavedState(0, 2, 1)]


def save(store: Store, state: SavedState) -> None:
    """One state, in two parts as of two workers."""
    rng = np.random.default_rng(state.step)
    rows = [slice(0, 16), slice(16, 24)]
    parts = [
        store.save_latents(0, state.slot, r, rng.random((4, 1, r.stop - r.start, 10), "f4"))
        for r in rows
    ]
    store.confirm_state(state, reversed(parts))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A finished picture with two states."""
    where = str(tmp_path / "a.zarr")
    if request.param == "bucket":
        request.getfixturevalue("s3")
        where = f"s3://{BUCKET}/{abs(hash(request.node.name))}.zarr"
    made = make_store(where, *SHAPE, finish=False)
    for state in STATES:
        save(made, state)
    for row in (0, 100, 200):
        made.journal.append({"event": "block", "ids": made.write_rows(row, PICTURE[row:][:100])})
    made.finish()
    return made


def test_a_whole_store_is_whole(store: Store) -> None:
    found = verify(store.path)
    assert found.is_whole
    # Beside run.json and all zarr.json: blocks, the level above, the newest state's chunks.
    assert found.num_files == 1 + len(store.documents) + 3 + 1 + 3
    assert str(found).endswith("files")
    assert "block" not in str(found)


DAMAGED = {
    "0/c/0/0/0": "block 0/0 is drawn again",
    "0/c/0/1/0": "block 1/0 is drawn again",
    "1/c/0/0/0": "the pyramid is built again",
    "frieze/latents/0/c/1/0/0/2/0": "the picture is whole, and it is needed no more",
    "zarr.json": "it is written anew",
    "0/zarr.json": "it is written anew",
    "frieze/latents/zarr.json": "it is written anew",
}
# What a name means is the same wherever it lies: in a bucket a chunk and a document stand for all.
IN_BUCKETS = ("0/c/0/1/0", "zarr.json")


@pytest.mark.parametrize(
    ("store", "name", "again"),
    [
        pytest.param(
            where,
            name,
            again,
            marks=pytest.mark.slow if where == "bucket" and name not in IN_BUCKETS else [],
        )
        for where in ("folder", "bucket")
        for name, again in DAMAGED.items()
    ],
    indirect=["store"],
)
def test_damage_is_told_by_name_and_a_mended_store_is_whole(
    store: Store, name: str, again: str
) -> None:
    files = store_directory(store.path)
    whole = files.read(name)
    assert whole
    other = files.read("0/c/0/0/0" if name == "0/c/0/1/0" else "0/c/0/1/0")
    ways = [None, b"", whole[:-1], whole[:9] + b"?" + whole[10:], bytes(len(whole)), other]
    # What is read is looked at alike wherever it lies; requests take their time.
    for damaged in ways if isinstance(store.path, Path) else ways[0::3]:
        if damaged is None:
            remove(store, name)
        else:
            files.write(name, damaged)
        (found,) = verify(store.path).damage
        assert (found.name, found.again) == (name, again)
        assert found.reason in ("is missing", "is empty", "is not what was written there")
    assert [each.name for each in mend(Store.open(store.path, mends=True))] == [name]
    assert verify(store.path).is_whole
    again_open = Store.open(store.path)
    is_drawn_anew = name[0] in "01" and "/c/" in name
    assert again_open.is_complete != is_drawn_anew
    assert len(again_open.done()) == 3 - name.startswith("0/c")


def remove(store: Store, name: str) -> None:
    if isinstance(store.path, Path):
        (store.path / name).unlink()
    else:
        store.directory.remove([name])


def test_the_newest_state_that_is_whole_is_gone_on_from(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", *SHAPE, finish=False)
    for state in STATES:
        save(store, state)
    flipped(store.path / "frieze/latents/0/c/1/0/0/1/0", 5)
    (found,) = verify(store.path).damage
    assert found.again == "the steps after step 1 of stage 1 are done again"
    assert store.last_state() == STATES[1]
    mend(store)
    assert store.last_state() == STATES[0]
    save(store, SavedState(0, 2, 1))
    assert store.last_state() == STATES[1], "one that is saved again counts again"
    flipped(store.path / "frieze/latents/0/c/1/0/0/1/0", 5)
    flipped(store.path / "frieze/latents/0/c/0/0/0/0/0", 5)
    mend(store)
    assert store.last_state() is None


def test_a_slot_that_was_written_over_holds_no_older_state(tmp_path: Path) -> None:
    """As by a worker whose driver was killed before it could say so."""
    store = make_store(tmp_path / "a.zarr", *SHAPE, finish=False)
    for state in STATES:
        save(store, state)
    store.save_latents(0, 0, slice(0, 8), np.ones((4, 1, 8, 10), "f4"))
    assert verify(store.path).is_whole, "no state that counts is touched"
    flipped(store.path / "frieze/latents/0/c/1/0/0/1/0", 5)
    mend(store)
    assert store.last_state() is None
    save(store, STATES[0])
    store.load_latents(0, 0, slice(0, 24))
    store.save_latents(0, 0, slice(0, 8), np.ones((4, 1, 8, 10), "f4"))
    with pytest.raises(StoreError, match="not what was written"):
        store.load_latents(0, 0, slice(0, 24))


def test_what_guides_a_state_is_looked_at_with_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", PICTURE, BLOCK, (LATENTS, CLEAN), finish=False)
    for step, state in enumerate(STATES):
        kept = store.save_latents(1, step, slice(0, 24), np.ones((4, 1, 24, 10), "f4"))
        store.confirm_kept("0-clean", step, [kept])
        save(store, state)
    flipped(store.path / "frieze/latents/0-clean/c/1/0/0/1/0", 5)
    (found,) = verify(store.path).damage
    assert found.again == "the steps after step 1 of stage 1 are done again"
    mend(store)
    assert store.last_state() == STATES[0]


def test_files_that_do_not_count_may_be_anything(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", *SHAPE)
    for name in ("frieze/log.jsonl", "0/c/7", "notes.txt", "frieze/latents/0/c/0/0/0/0/0"):
        store.directory.write(name, b"\xff\x00")
    assert verify(store.path).is_whole


def test_run_json_is_told_and_a_place_without_a_store_is_an_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", *SHAPE)
    flipped(store.path / "frieze/run.json", 200)
    found = verify(store.path)
    assert [(each.name, each.again) for each in found.damage] == [("frieze/run.json", "")]
    assert "restore it from a copy" in str(found)
    with pytest.raises(StoreError, match="no store"):
        verify(tmp_path / "b.zarr")


def old(path: Path) -> Store:
    """A finished store from before digests, that has a state."""
    store = make_store(path, *SHAPE)
    save(store, STATES[0])
    return Store.open(aged(path))


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-4], None])
def test_an_old_store_is_decoded(tmp_path: Path, change: Callable[[bytes], bytes] | None) -> None:
    store = old(tmp_path / "a.zarr")
    found = verify(store.path)
    assert found.is_whole
    assert "before checksums" in str(found)
    file = store.path / "0/c/0/1/0"
    data = file.read_bytes()
    file.unlink() if change is None else file.write_bytes(change(data))
    (damage,) = verify(store.path).damage
    assert damage.again == "block 1/0 is drawn again"
    mend(store)
    assert store.done() == {"0/0", "2/0"}


def test_an_old_states_older_ones_are_not_to_be_trusted(tmp_path: Path) -> None:
    """Nothing tells whether a slot was written over."""
    store = make_store(tmp_path / "a.zarr", *SHAPE, finish=False)
    for state in STATES:
        save(store, state)
    store = Store.open(aged(store.path))
    (store.path / "frieze/latents/0/c/1/0/0/1/0").write_bytes(b"")
    assert str(verify(store.path).damage[0]).endswith("it cannot be made again")
    with pytest.raises(StoreError, match="restore it from a copy") as caught:
        mend(store)
    assert "\n" not in str(caught.value)
    assert store.last_state() == STATES[1], "nothing was written"


def test_the_command_says_so_and_ends_with_1(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", *SHAPE)
    whole = frieze("verify", str(store.path))
    assert (whole.exit_code, whole.stderr) == (0, "")
    assert "whole" in whole.stdout
    (store.path / "0/c/0/0/0").write_bytes(b"")
    said = frieze("verify", str(store.path), "--json")
    about = json.loads(said.stdout)
    assert (said.exit_code, about["event"], about["is_whole"]) == (1, "verify", False)
    assert about["damage"] == [
        {"name": "0/c/0/0/0", "reason": "is empty", "again": "block 0/0 is drawn again"}
    ]
