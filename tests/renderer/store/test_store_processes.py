"""Several processes and one store: nothing is lost, and nothing half done counts."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.store.layout import halve
from frieze.renderer.store.store import Store
from support.forkserver import Program
from tolerances import AMPLE


def python(code: str, *arguments: object) -> Program:
    """Another process; `picture` is at hand there too."""
    head = "import sys, time\nfrom contracts.export import picture\n"
    head += "from frieze.renderer.store.store import Store\nstore = Store.open(sys.argv[1])\n"
    return Program(head + code, *map(str, arguments))


def test_processes_that_write_their_own_rows_lose_nothing(tmp_path: Path) -> None:
    pixels_HWC = picture(512, 200)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 64), finish=False)
    code = """
pixels = picture(512, 200)
print("ready", flush=True)
sys.stdin.readline()
for row in range(32 * int(sys.argv[2]), 512, 96):
    print(*store.write_rows(row, pixels[row : row + 32]), flush=True)
"""
    workers = [python(code, store.path, rank) for rank in range(3)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 3
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=AMPLE)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    for ids in outputs:
        store.journal.append({"event": "block", "ids": ids})
    store.finish()
    found_HWC = np.concatenate([rows for _, rows in store.in_order()])
    np.testing.assert_array_equal(found_HWC, pixels_HWC)
    np.testing.assert_array_equal(store.read_rows(0, 256, 1), halve(pixels_HWC))


def test_after_a_killed_writer_the_blocks_in_the_journal_are_whole(tmp_path: Path) -> None:
    pixels_HWC = picture(2048, 512)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 512), finish=False)
    code = """
pixels = picture(2048, 512)
for row in range(0, 2048, 64):
    store.journal.append({"event": "block", "ids": store.write_rows(row, pixels[row : row + 64])})
    print(row, flush=True)
"""
    # This process stands aside: its lock is on a file that goes.
    shutil.copyfile(store.path / "frieze" / "lock", tmp_path / "lock")
    os.replace(tmp_path / "lock", store.path / "frieze" / "lock")
    writer = python(code, store.path)
    for _ in range(3):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    store = Store.open(store.path)
    done = store.done()
    assert 3 <= len(done) < 32
    for block in done:
        row = int(block.split("/")[0]) * 64
        np.testing.assert_array_equal(store.read_rows(row, row + 64), pixels_HWC[row : row + 64])
    (store.path / "0" / "c" / "0" / "5.0123.partial").write_bytes(b"torn")
    for row in range(0, 2048, 64):
        if not store.covers(done, row):
            ids = store.write_rows(row, pixels_HWC[row : row + 64])
            store.journal.append({"event": "block", "ids": ids})
    store.finish()
    assert not list(store.path.rglob("*.partial"))
    found_HWC = np.concatenate([rows for _, rows in store.in_order()])
    np.testing.assert_array_equal(found_HWC, pixels_HWC)


def test_another_process_reads_finished_blocks_while_others_are_missing(tmp_path: Path) -> None:
    pixels_HWC = picture(128, 64)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32), finish=False)
    store.journal.append({"event": "block", "ids": store.write_rows(0, pixels_HWC[:32])})
    code = """
for row, rows in store.in_order(wait=True, poll=0.01):
    print(row, int(rows.sum()), len(store.done()), flush=True)
"""
    reader = python(code, store.path)
    assert reader.stdout.readline() == f"0 {pixels_HWC[:32].sum()} 2\n"
    for row in (96, 64, 32):
        ids = store.write_rows(row, pixels_HWC[row : row + 32])
        store.journal.append({"event": "block", "ids": ids})
    rest = reader.communicate(timeout=AMPLE)[0].splitlines()
    sums = [pixels_HWC[row : row + 32].sum() for row in (32, 64, 96)]
    assert [line.split()[1] for line in rest] == [str(total) for total in sums]
    assert not store.is_complete


def test_two_processes_cannot_draw_into_one_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    code = """
from frieze.renderer.errors import StoreError
for act in (lambda: store.journal.append({"event": "note"}),
            lambda: Store.create(store.path, store.layout, fingerprint="", run={}, overwrite=True)):
    try:
        act()
    except StoreError as error:
        print(error, flush=True)
"""
    output = python(code, store.path).communicate(timeout=AMPLE)[0].splitlines()
    assert len(output) == 2
    assert all("another process" in line for line in output)
    assert store.journal.read() == []


def test_a_follower_gives_up_when_nobody_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    monkeypatch.setattr(type(store.journal), "is_claimed", lambda self: False)
    with pytest.raises(StoreError, match="not finished"):
        list(store.in_order(wait=True, poll=0.01, patience=0.05))
    with pytest.raises(StoreError, match="not finished"):
        store.wait_finished()
