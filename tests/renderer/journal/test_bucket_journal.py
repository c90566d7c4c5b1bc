"""The journal in a bucket: nothing is lost from page to page, and nobody writes over anybody."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.files import lease
from frieze.renderer.files.bucket import Bucket
from frieze.renderer.journal import bucket_journal
from frieze.renderer.journal.inventory import SavedState
from frieze.renderer.journal.journal import Journal
from frieze.renderer.store.layout import LatentArray
from frieze.renderer.store.store import Store
from support.s3_server import BUCKET, S3Server
from tolerances import AMPLE

LARGE = {"layer": [0.25] * 2**14}
LATENTS = (LatentArray("0", (2, 4, 1, 24, 10), 8),)


@pytest.fixture
def store(s3: S3Server, request: pytest.FixtureRequest) -> Store:
    """An unfinished store at an address of its own."""
    address = f"s3://{BUCKET}/{request.node.name}.zarr"
    return make_store(address, picture(64, 64), (32, 32), LATENTS, finish=False)


def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the objects that are fetched from now on."""
    fetched: list[str] = []
    fetch = Bucket.fetch

    def listen(self: Bucket, name: str) -> object:
        fetched.append(name)
        return fetch(self, name)

    monkeypatch.setattr(Bucket, "fetch", listen)
    return fetched


def test_events_come_back_in_order_over_many_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_journal, "PAGE_EVENTS", 4)
    reader = Store.open(store.path).journal
    for number in range(11):
        store.journal.append({"event": "note", "number": number})
        if number == 8:
            assert reader.size == 9
    again = Store.open(store.path)
    assert [event["number"] for event in again.journal.read()] == list(range(11))
    assert all(event["time"] > 0 for event in again.journal.read())
    assert len(store.directory.tags(bucket_journal.FOLDER)) == 3
    fetched = requests(monkeypatch)
    assert reader.size == 11
    assert reader.size == 11
    assert fetched == ["frieze/journal/00000003.json"], "full pages are read once"


def test_a_large_event_fills_its_page(store: Store) -> None:
    for number in range(3):
        store.journal.append({"event": "focus", "stage": number, "entropies": [LARGE]})
    assert len(store.directory.tags(bucket_journal.FOLDER)) == 3
    assert store.journal.entropies(1) == [LARGE]


def test_a_later_driver_goes_on_where_the_first_one_stopped(store: Store) -> None:
    store.journal.append({"event": "state", "stage": 0, "step": 3, "slot": 1})
    store.journal.release()
    again = Store.open(store.path)
    again.journal.append({"event": "state", "stage": 0, "step": 4, "slot": 0})
    assert store.last_state() == SavedState(stage=0, step=4, slot=0)
    assert len(store.journal.read()) == 2
    store.journal.append({"event": "note"})
    assert len(again.journal.read()) == 3


def test_a_second_writer_is_refused_even_without_a_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a lease had been thought lost that was not."""
    other = Store.open(store.path)
    other.journal.append({"event": "note", "by": "other"})
    store.journal.append({"event": "note", "by": "first"})
    with pytest.raises(StoreError, match="another process as well"):
        other.journal.append({"event": "note", "by": "other"})
    assert [event["by"] for event in store.journal.read()] == ["other", "first"]
    monkeypatch.setattr(
        Bucket, "swap", lambda self, name, data, tag: self.write(name, data) or "any"
    )
    store.journal.append({"event": "note", "by": "first"})
    other = Store.open(store.path)
    other.journal.append({"event": "note", "by": "other"})  # from now on it does not look again
    store.journal.append({"event": "note", "by": "lost"})
    other.journal.append({"event": "note", "by": "other"})
    assert [event["by"] for event in Store.open(store.path).journal.read()][-1] == "other"
    assert "lost" not in json.dumps(Store.open(store.path).journal.read()), "control"


def test_an_answer_that_was_lost_is_no_other_driver(store: Store) -> None:
    """The client sends a request again; the server has done it already."""
    tag = store.directory.swap("frieze/journal/00000001.json", b"mine", None)
    assert store.directory.swap("frieze/journal/00000001.json", b"mine", None) == tag
    assert store.directory.swap("frieze/journal/00000001.json", b"others", None) is None
    assert store.directory.swap("frieze/journal/00000001.json", b"mine", '"old"') == tag
    assert store.directory.read("frieze/journal/00000001.json") == b"mine"


def test_an_outage_of_the_server_is_waited_out(
    s3: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.2)  # so that the lease is over as well
    store.journal.release()
    store.journal.append({"event": "note", "number": 0})
    s3.stop()
    writer = threading.Thread(target=store.journal.append, args=({"event": "note", "number": 1},))
    try:
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
    finally:
        s3.start()
    writer.join(AMPLE)
    again = Store.open(store.path)
    assert [event["number"] for event in again.journal.read()] == [0, 1]


def test_a_missing_or_broken_page_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_journal, "PAGE_EVENTS", 1)
    for number in range(3):
        store.journal.append({"event": "note", "number": number})
    store.directory.write("frieze/journal/notes.txt", b"a stranger's")
    page = store.directory.read("frieze/journal/00000002.json")
    assert page
    name = "frieze/journal/00000002.json"

    def old() -> Journal:
        """As of a store from before checksums."""
        journal = Store.open(store.path).journal
        journal.is_sealed = False
        return journal

    flipped = page.replace(b'"number":1', b'"number":3')
    for data in (page[:-4], b"[]", b'{"events": [1]}', b"\x80\x04cos\nsystem\n.", flipped):
        store.directory.write(name, data)
        with pytest.raises(StoreError, match=r"00000002.json.* is no page"):
            old().read()
        journal = Store.open(store.path).journal
        assert [event["number"] for event in journal.read()] == [0, 2]
        assert [where.partition(",")[0] for where in journal.damaged()] == [name]
    store.directory.remove([name])
    with pytest.raises(StoreError, match=r"00000002.json is missing"):
        old().read()
    assert Store.open(store.path).journal.damaged() == [name]
    store.directory.write(name, page)
    assert len(Store.open(store.path).journal.read()) == 3


def test_a_damaged_last_page_is_written_on_no_more(store: Store) -> None:
    store.journal.append({"event": "note", "number": 0})
    store.directory.write("frieze/journal/00000001.json", b"{")
    again = Store.open(store.path)
    again.journal.append({"event": "note", "number": 1})
    assert [event["number"] for event in again.journal.read()] == [1]
    assert store.directory.read("frieze/journal/00000001.json") == b"{"
    again.journal.append({"event": "lost", "lines": again.journal.damaged()})
    assert Store.open(store.path).journal.damaged() == []


def test_only_blocks_in_the_journal_count(store: Store) -> None:
    ids = store.write_rows(0, picture(32, 64))
    assert store.done() == frozenset()
    store.journal.append({"event": "block", "ids": ids})
    assert Store.open(store.path).done() == frozenset(ids)
    with pytest.raises(StoreError, match="2 of 4"):
        store.finish()


def test_the_journal_on_disk_has_no_pages(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    assert not (store.path / bucket_journal.FOLDER).exists()
    assert (store.path / "frieze" / "journal.jsonl").exists()
