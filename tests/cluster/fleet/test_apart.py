"""One function apart from the ranks: its process and its memory are gone when it has answered."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from frieze.cluster.fleet import FleetError, LocalFleet, SoloFleet, WorkerLostError
from frieze.cluster.ray.actor_fleet import RayFleet
from frieze.cluster.ray.placement import check_room
from frieze.cluster.ray.session import connect, session, start, threads_of
from support import errands
from tolerances import AMPLE

FOREVER = 3600.0  # seconds; longer than a test may take


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.ray
def test_its_process_is_its_own_and_has_ended(ray_cluster: int) -> None:
    import ray

    with session(2):
        pid, tensors = RayFleet.run_isolated(errands.encode, 7)
    assert ray.is_initialized(), "a session leaves a Ray that it did not start"
    assert pid != os.getpid()
    assert not is_running(pid)
    _, expected = errands.encode(7)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


@pytest.mark.slow  # as any verb's, which `test_fleet.py` has
@pytest.mark.ray
def test_its_error_arrives_with_type_message_and_place(ray_cluster: int) -> None:
    with pytest.raises(KeyError, match="no such encoder") as caught:
        RayFleet.run_isolated(errands.refuse, "no such encoder")
    notes = "\n".join(caught.value.__notes__)
    assert "pid" in notes
    assert "errands.py" in notes


@pytest.mark.slow  # as any rank's, which `test_mending.py` has
@pytest.mark.ray
def test_its_death_arrives_as_a_lost_worker(ray_cluster: int) -> None:
    with pytest.raises(WorkerLostError, match="was lost"):
        RayFleet.run_isolated(errands.die)


@pytest.mark.slow
@pytest.mark.ray
def test_its_silence_ends_with_the_timeout(
    ray_cluster: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayFleet, "grace", 0.5)  # it will say nothing
    with pytest.raises(WorkerLostError, match=r"hangs.* 2 s"):
        RayFleet.run_isolated(errands.sleep, str(tmp_path), FOREVER, timeout=2.0)
    # A machine that is very busy had not begun.
    told = tmp_path / "pid"
    assert not told.exists() or not is_running(int(told.read_text()))


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow  # a fleet is interrupted in `test_fleet.py`, and leaves no process there
@pytest.mark.usefixtures("_interruptible")
@pytest.mark.ray
def test_ctrl_c_ends_it_at_once(ray_cluster: int, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        RayFleet.run_isolated(errands.sleep, str(tmp_path), FOREVER)
    assert not is_running(int((tmp_path / "pid").read_text()))


@pytest.mark.ray
def test_a_cluster_without_room_for_it_is_refused(ray_cluster: int) -> None:
    with pytest.raises(FleetError, match="did not fit"):
        RayFleet.run_isolated(errands.threads, num_cpus=ray_cluster + 1, wait=0.5)


@pytest.mark.slow
@pytest.mark.ray
def test_room_that_is_there_is_given_back_and_room_that_is_not_is_told(empty_cluster: int) -> None:
    for _ in range(2):
        check_room(empty_cluster, num_cpus=1, num_gpus=0, wait=AMPLE)
    with pytest.raises(FleetError, match=rf"{empty_cluster + 1} workers of 1 CPU .* within 0.5 s"):
        check_room(empty_cluster + 1, num_cpus=1, num_gpus=0, wait=0.5)
    with pytest.raises(FleetError, match=r"1 CPU and 1 GPU .* 0 GPU \(0 free\)"):
        check_room(1, num_cpus=1, num_gpus=1, wait=0.5)
    assert (
        RayFleet.run_isolated(errands.threads, num_cpus=empty_cluster)
        == os.environ["OMP_NUM_THREADS"]
    )


def test_a_session_starts_one_ray_for_all_fleets_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    calls: list[str] = []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: calls[-1:] == ["init 3"])
    monkeypatch.setattr(ray, "init", lambda num_cpus, **_: calls.append(f"init {num_cpus}"))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    with session(3):
        assert not connect(3, None, 1.0)
        assert threads_of(1) == {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    assert calls == ["init 3", "shutdown"]
    assert threads_of(1) == {}


@pytest.mark.parametrize("kind", [LocalFleet, SoloFleet], ids=lambda kind: kind.__name__)
def test_in_this_process_nothing_but_the_result_is_left(kind: type[LocalFleet]) -> None:
    encoders: list[weakref.ref[torch.Tensor]] = []

    def encode() -> torch.Tensor:
        # As in a network: modules and their hooks refer to each other.
        network = torch.nn.Linear(512, 512)
        network.itself = [network]
        encoders.append(weakref.ref(network.weight))
        return network(torch.ones(1, 512))

    gc.disable()
    try:
        assert kind.run_isolated(encode).shape == (1, 512)
        assert encoders[0]() is None
        encode()  # control: a plain call leaves the cycle
        assert encoders[1]() is not None
    finally:
        gc.enable()


def test_a_ray_that_is_late_is_started_again_and_one_that_never_comes_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    calls: list[str] = []

    def init(num_cpus: int, **_: object) -> None:
        calls.append("init")
        if calls.count("init") <= num_cpus:  # so many times it is late
            raise Exception("Starting a node.\nThe current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    start(num_cpus=1)
    assert calls == ["init", "shutdown", "init"]
    calls.clear()
    with pytest.raises(FleetError, match=r"3 times: The current node timed out during startup"):
        start(num_cpus=9)
    assert calls == ["init", "shutdown"] * 3
