"""The writer thread loses no rows, no ids and no errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.worker.writers.blocks import BlockWriter
from tolerances import AMPLE


def test_the_writer_feeds_store_and_sinks_and_tells_what_is_done(tmp_path: Path) -> None:
    pixels_HWC = picture(128, 64)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32), finish=False)
    seen: list[int] = []
    with BlockWriter(store, sinks=[lambda row, rows_HWC: seen.append(row)]) as writer:
        for row in range(0, 128, 32):
            writer.put(row, pixels_HWC[row : row + 32])
    assert seen == [0, 32, 64, 96]
    assert list(writer.drain()) == store.layout.ids(0, 128)
    assert not writer.drain()


def test_an_error_of_the_writer_surfaces_once_and_blocks_no_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(128, 64), (32, 32), finish=False)
    writer = BlockWriter(store, depth=1)

    def feed() -> None:
        while True:
            writer.put(16, picture(32, 64))
            time.sleep(0.01)

    with pytest.raises(StoreError, match="cut through"):
        feed()
    with pytest.raises(StoreError, match="cut through"):
        writer.close()
    assert not writer.drain()


def test_the_writer_holds_no_more_than_its_depth(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(320, 64), (32, 32), finish=False)
    gate, put = threading.Event(), []
    writer = BlockWriter(store, sinks=[lambda row, rows_HWC: gate.wait()], depth=2)

    def feed() -> None:
        for row in range(0, 320, 32):
            writer.put(row, picture(320, 64)[row : row + 32])
            put.append(row)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert len(put) <= 3
    gate.set()
    thread.join(AMPLE)
    writer.close()
    assert len(writer.drain()) == 20
