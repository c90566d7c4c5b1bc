"""One driver at a time draws into a store in a bucket, and a silent one loses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.files import lease
from frieze.renderer.monitoring.status import status
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from support.forkserver import Program
from support.s3_server import BUCKET, S3Server
from tolerances import AMPLE

# A driver that lives must be heard of in time on a machine that has much to do; whoever waits for
# a dead one's time to be over waits no longer than that.
SECONDS, SHORT = 3.0, 1.5
LAYOUT = StoreLayout(64, 64, (32, 32))
DRIVER = """
import sys
from frieze.renderer.files import lease as leases
leases.SECONDS = float(sys.argv[2])
from frieze.renderer.errors import StoreError
from frieze.renderer.store.store import Store
store = Store.open(sys.argv[1])
for number, line in enumerate(sys.stdin):
    try:
        store.journal.append({"event": "note", "number": number})
        print("written", flush=True)
    except StoreError as error:
        print(error, flush=True)
"""


class Driver:
    """Another process that writes into the journal when told, and says how it went."""

    def __init__(self, process: Program | subprocess.Popen[str]) -> None:
        self.process = process
        assert self.write() == "written"

    def write(self) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def seconds() -> float:
    """How long a lease lasts."""
    return SHORT


@pytest.fixture
def store(
    s3: S3Server,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> Iterator[Store]:
    """A store that no driver holds, and leases that are over soon."""
    monkeypatch.setattr(lease, "SECONDS", seconds)
    monkeypatch.setattr(lease, "LOOK", 0.05)
    made = make_store(
        f"s3://{BUCKET}/{request.node.name}.zarr", picture(64, 64), (32, 32), finish=False
    )
    made.journal.release()
    yield made
    made.journal.release()


@pytest.fixture
def driver(store: Store, seconds: float) -> Iterator[Driver]:
    """Another process that holds the store."""
    with Program(DRIVER, str(store.path), str(seconds)) as process:
        yield Driver(process)
        process.kill()


@pytest.mark.parametrize("seconds", [SECONDS])
def test_two_drivers_cannot_draw_into_one_store(store: Store, driver: Driver) -> None:
    assert store.journal.is_claimed()
    time.sleep(SECONDS)  # longer than a lease that is not renewed
    for act in (
        lambda: store.journal.append({"event": "note"}),
        lambda: Store.create(store.path, LAYOUT, fingerprint="", run={}, overwrite=True),
        lambda: Store.check(store.path, LAYOUT, overwrite=True),
    ):
        with pytest.raises(StoreError, match=f"another process .*pid {driver.process.pid}"):
            act()
    assert driver.write() == "written"
    assert [event["number"] for event in store.journal.read()] == [0, 1]


def test_a_dead_drivers_store_is_taken_over_when_its_time_is_over(
    store: Store, driver: Driver
) -> None:
    driver.process.send_signal(signal.SIGKILL)
    driver.process.wait()
    began = time.monotonic()
    store.journal.append({"event": "block", "id": "0/0"})
    assert time.monotonic() - began > SHORT / 2
    assert store.done() == {"0/0"}
    assert [event["event"] for event in store.journal.read()] == ["note", "block"]


@pytest.mark.parametrize("seconds", [SECONDS])
def test_a_dead_drivers_render_is_called_stopped_when_its_time_is_over(
    store: Store, driver: Driver
) -> None:
    assert status(store.path).state == "running"
    driver.process.send_signal(signal.SIGKILL)
    driver.process.wait()
    time.sleep(SECONDS)
    assert store.journal.is_claimed(), "the hosts' clocks may be a minute apart"
    found = status(store.path)
    assert found.state == "stopped"
    assert found.silence >= SECONDS - 1  # servers tell whole seconds
    assert re.fullmatch(r"its driver is gone for \d+:\d\d", found.reason)


@pytest.mark.parametrize("seconds", [SECONDS])
def test_a_live_drivers_render_runs_however_wrong_the_clock(
    store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = lease.silence
    monkeypatch.setattr(lease, "SKEW", 1e6)
    monkeypatch.setattr(lease, "silence", lambda found: truly(found) + 1000)
    found = status(store.path)
    assert (found.state, found.silence > 1000) == ("running", True)
    assert "last sign of life 16:4" in found.line()
    driver.process.send_signal(signal.SIGSTOP)
    assert status(store.path).state == "stopped", "control"
    driver.process.send_signal(signal.SIGCONT)


def test_a_driver_that_was_silent_too_long_is_told_that_it_lost(
    store: Store, driver: Driver
) -> None:
    driver.process.send_signal(signal.SIGSTOP)
    store.journal.append({"event": "block", "id": "0/0"})
    driver.process.send_signal(signal.SIGCONT)
    assert "taken over by another process" in driver.write()
    assert "taken over by another process" in driver.write()
    store.journal.append({"event": "block", "id": "0/1"})
    assert [event["event"] for event in store.journal.read()] == ["note", "block", "block"]


def test_a_driver_that_ends_leaves_its_store_at_once(store: Store) -> None:
    """One that was started as users start it: what is done at exit is what is tested."""
    command = [sys.executable, "-c", DRIVER, str(store.path), str(SECONDS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        Driver(process)
        process.communicate(timeout=AMPLE)
    assert process.returncode == 0
    assert not store.journal.is_claimed()
    assert store.directory.read(lease.NAME) is None


def test_a_lease_from_long_ago_is_taken_without_a_wait(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SKEW", -SHORT - 1)
    monkeypatch.setattr(lease, "SECONDS", 1e6)
    store.directory.write(lease.NAME, b'{"owner": "x", "seconds": 1, "count": 1}')
    store.journal.claim()
    assert lease.is_held(store.directory)


def test_a_damaged_lease_ends_like_any_other(store: Store) -> None:
    store.directory.write(lease.NAME, b"\x80nonsense")
    assert store.journal.is_claimed()
    store.journal.claim()
    assert lease.is_held(store.directory)


def test_a_lease_of_a_forked_parent_is_not_the_childs(store: Store, tmp_path: Path) -> None:
    store.journal.claim()
    own = lease.held()[str(store.path)]
    own.pid = os.getppid()
    assert not lease.is_held(store.directory)
    own.pid = os.getpid()
    assert lease.is_held(store.directory)
