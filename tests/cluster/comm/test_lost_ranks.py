"""A rank that dies, hangs, raises or leaves is named on every other rank, and never waited for."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from frieze.cluster.comm import (
    Comm,
    CommError,
    Like,
    RankLostError,
    RemoteStore,
    distributed,
    threads,
)
from support.processes import file_store
from tolerances import AMPLE

FOREVER = 3600.0  # a timeout that no test survives
CPU = torch.device("cpu")


# ---- threads


def rank_1_raises(comm: Comm) -> None:
    if comm.rank == 1:
        raise ValueError("no such weights")
    comm.barrier()


def rank_1_leaves(comm: Comm) -> None:
    if comm.rank != 1:
        comm.barrier()


def rank_1_computes_on(comm: Comm, release: threading.Event) -> None:
    if comm.rank == 1:
        release.wait()
    comm.barrier()


def test_an_error_of_one_thread_reaches_all_at_once(world: Callable) -> None:
    with pytest.raises(ValueError, match="no such weights") as caught:
        world(3, timeout=FOREVER)(rank_1_raises)
    notes = "\n".join(caught.value.__notes__)
    for rank in (0, 2):
        assert f"rank {rank}: RankLostError" in notes
    assert "rank 1 raised ValueError: no such weights" in notes


def test_a_thread_that_left_is_not_waited_for(world: Callable) -> None:
    with pytest.raises(RankLostError, match="but rank 1 has left") as caught:
        world(3, timeout=FOREVER)(rank_1_leaves)
    assert caught.value.rank == 1


def test_a_thread_that_hangs_is_named_within_the_timeout(world: Callable) -> None:
    release = threading.Event()
    try:
        with pytest.raises(RankLostError, match=r"[01](\.\d)? s") as caught:
            world(3, timeout=1.0)(rank_1_computes_on, release)
    finally:
        release.set()
    assert caught.value.rank == 1
    assert "\n" not in str(caught.value)


def test_after_a_failure_every_call_fails() -> None:
    first, second = threads(2)
    first.abort("rank 0 has had enough")
    for _ in range(2):
        with pytest.raises(RankLostError, match="had enough") as caught:
            second.barrier()
        assert caught.value.rank == 0


# ---- processes


def told(comm: Comm, folder: Path, num_others: int) -> None:
    """Says that this rank has heard; with others to wait for, waits until so many have."""
    (folder / str(comm.rank)).touch()
    while len(list(folder.iterdir())) <= num_others:
        time.sleep(0.02)


def barrier_unless(comm: Comm, way: str, lost: int, folder: Path) -> tuple[int | None, str]:
    """What a survivor hears when rank `lost` leaves in some way."""
    if comm.rank == lost:
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "hung":
            told(comm, folder, comm.size - 1)
            return None, "slept"
        raise ValueError("no such weights")
    with pytest.raises(RankLostError) as caught:
        comm.barrier()
    with pytest.raises(RankLostError):
        comm.barrier()
    told(comm, folder, 0)
    return caught.value.rank, str(caught.value)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_is_named_on_every_other_rank(
    gloo_world: Callable, tmp_path: Path, lost: int
) -> None:
    outcomes = gloo_world(3, barrier_unless, "killed", lost, tmp_path, timeout=FOREVER)
    assert outcomes.pop(lost) is None
    for rank, text in outcomes:
        assert rank == lost
        assert f"from rank {lost}: the connection closed" in text
        assert "\n" not in text


def test_a_hung_process_is_named_within_the_timeout(gloo_world: Callable, tmp_path: Path) -> None:
    outcomes = gloo_world(3, barrier_unless, "hung", 1, tmp_path, timeout=3.0)
    assert outcomes[1] == (None, "slept")
    for rank, text in (outcomes[0], outcomes[2]):
        assert rank == 1
        assert re.search(r"waited \d+\.\d s for 1 uint8 from rank 1", text)


def test_an_error_of_one_process_reaches_all(gloo_world: Callable, tmp_path: Path) -> None:
    outcomes = gloo_world(3, barrier_unless, "raised", 1, tmp_path, timeout=FOREVER)
    assert isinstance(outcomes[1], ValueError)
    for rank, text in (outcomes[0], outcomes[2]):
        assert rank == 1
        assert "rank 1" in text


def new_path(comm: Comm) -> str:
    """A path at which nothing is, the same for all ranks."""
    folder = tempfile.mkdtemp() if comm.rank == 0 else None
    return f"{comm.broadcast_object(folder, 0)}/store"


def another_world(comm: Comm, timeout: float) -> Comm:
    store = file_store(new_path(comm), comm.size)
    return distributed(comm.rank, comm.size, store=store, address="127.0.0.1", timeout=timeout)


def one_world_after_another(comm: Comm) -> bool:
    """Whether this process ends with the threads and open files that it began with."""

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    comm.barrier()
    before = held()
    for number in range(4):
        later = another_world(comm, timeout=AMPLE)
        later.barrier()
        if number % 2:
            later.abort("enough")
        later.close()
        later.close()
        with pytest.raises(CommError, match="enough" if number % 2 else "has closed"):
            later.barrier()
        comm.barrier()

    def is_back() -> bool:
        return all(now <= then + 1 for now, then in zip(held(), before, strict=True))

    deadline = time.monotonic() + AMPLE  # connections close a moment later, on threads of torch
    while not is_back() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_back()


def test_worlds_follow_one_another_in_one_process(gloo_world: Callable) -> None:
    assert gloo_world(2, one_world_after_another) == [True, True]


def abort_from_another_thread(comm: Comm, folder: Path) -> tuple[int | None, str]:
    if comm.rank == 0:
        threading.Timer(0.1, comm.abort, ["the driver said so"]).start()
    with pytest.raises(RankLostError) as caught:
        comm.exchange({}, {(comm.rank + 1) % comm.size: Like((1,), torch.float32, CPU)})
    told(comm, folder, comm.size - 1 if comm.rank == 0 else 0)  # rank 0 keeps the record of why
    return caught.value.rank, str(caught.value)


def test_an_abort_from_another_thread_ends_every_wait(gloo_world: Callable, tmp_path: Path) -> None:
    for rank, text in gloo_world(3, abort_from_another_thread, tmp_path, timeout=FOREVER):
        assert rank == 0
        assert "the driver said so" in text


def join_without_rank_1(comm: Comm) -> str:
    if comm.rank == 1:
        new_path(comm)
        comm.barrier()
        return ""
    with pytest.raises(RankLostError) as caught:
        another_world(comm, timeout=3.0)
    comm.barrier()
    assert caught.value.rank == 1
    return str(caught.value)


def test_a_rank_that_never_joins_is_named(gloo_world: Callable) -> None:
    for text in gloo_world(3, join_without_rank_1)[::2]:
        assert re.search(r"waited \d+\.\d s for rank 1 to join: it did not come in time", text)


def test_a_store_that_is_not_there_is_named() -> None:
    def nobody(*_: object) -> Callable[[float], object]:
        raise ConnectionError("the actor died")

    with pytest.raises(RankLostError, match="the store of rank 0: the actor died") as caught:
        distributed(1, 2, store=RemoteStore(nobody), address="127.0.0.1", timeout=1.0)
    assert "\n" not in str(caught.value)
