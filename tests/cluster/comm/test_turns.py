"""With turns one rank computes at a time, in an order that never changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from frieze.cluster.comm import Comm, CommError, Like, RankLostError, line_up, run_threads, threads
from tolerances import AMPLE

FOREVER = 3600.0  # a timeout that no test survives
CPU = torch.device("cpu")


def test_turns_go_round_in_rank_order() -> None:
    order: list[tuple[int, int]] = []

    def work(comm: Comm) -> None:
        for step in range(3):
            order.append((step, comm.rank))
            time.sleep(0.002 * (comm.size - comm.rank))
            comm.barrier()

    run_threads(work, 4, turns=True)
    # The last rank to arrive finds all its mail and computes on.
    assert order == [(step, (i - step) % 4) for step in range(3) for i in range(4)]


def test_only_one_rank_computes_at_a_time() -> None:
    computing: list[int] = []

    def work(comm: Comm) -> None:
        for _ in range(5):
            computing.append(comm.rank)
            time.sleep(0.001)
            assert computing == [comm.rank]
            computing.clear()
            comm.ring_pass(torch.zeros(1), Like((1,), torch.float32, CPU)).wait()

    run_threads(work, 4, turns=True)


def test_a_world_with_turns_serves_one_call_after_another() -> None:
    comms = threads(3, turns=True, timeout=AMPLE)
    seen: list[int] = []

    def verb(comm: Comm) -> None:
        with comm.turn(), comm.turn():
            seen.append(comm.rank)
            comm.barrier()

    for _ in range(3):
        line_up(comms)
        workers = [threading.Thread(target=verb, args=(comm,)) for comm in reversed(comms)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert seen == [0, 1, 2] * 3


def test_talking_outside_a_turn_is_refused() -> None:
    comm, _ = threads(2, turns=True)
    with pytest.raises(CommError, match="outside its turn"):
        comm.barrier()


@pytest.mark.parametrize("grad", [False, True])
def test_threads_compute_with_the_callers_grad_mode(world: Callable, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        assert world(2)(lambda comm: torch.is_grad_enabled()) == [grad, grad]
    with torch.inference_mode():
        assert world(2)(lambda comm: torch.is_inference_mode_enabled()) == [True, True]


def everyone_waits(comm: Comm) -> None:
    comm.exchange({}, {(comm.rank + 1) % comm.size: Like((4, 2), torch.float32, CPU)})


def test_with_turns_a_deadlock_is_found_at_once() -> None:
    with pytest.raises(RankLostError, match=r"every rank waits .* 4x2 float32 from rank"):
        run_threads(everyone_waits, 3, timeout=FOREVER, turns=True)
