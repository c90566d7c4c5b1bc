"""Ranks as threads of one process: the fast test world, and virtual ranks on one device.

With turns a baton goes round: one rank computes until it must wait for mail that is not there,
then the next rank in rank order that can go on does. That makes threads deterministic and keeps
one rank's transient memory live at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .collectives import Comm
from .messages import CommError, Like, Pending, RankLostError, check_like
from .parking import Parking, ParkingMedium
from .thread_world import Letter, World


class ThreadComm(Comm):
    """A rank of a `World`; used by one thread at a time."""

    def __init__(self, world: World, rank: int, parking: Parking | None = None) -> None:
        super().__init__(rank, world.num_ranks, world.timeout)
        self._world = world
        self._parking = parking
        self._sequence: dict[tuple[int, int, int], int] = {}

    def _letter(self, source: int, destination: int, tag: int) -> Letter:
        road = (source, destination, tag)
        self._sequence[road] = self._sequence.get(road, 0) + 1
        return (*road, self._sequence[road])

    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        self._world.deliver(
            self.rank,
            {self._letter(self.rank, other, tag): self._copy(x) for other, x in sends.items()},
        )
        letters = {other: self._letter(other, self.rank, tag) for other in receives}
        return Pending(lambda: self._collect(letters, receives))

    def _copy(self, x: Tensor) -> Tensor:
        """Mail: the sender may go on writing to what it sent, and does not park it."""
        mail = x.clone(memory_format=torch.contiguous_format)
        if self._parking is not None:
            self._parking.forget(mail.untyped_storage())
        return mail

    def _collect(
        self, letters: Mapping[int, Letter], receives: Mapping[int, Like]
    ) -> dict[int, Tensor]:
        awaited = ", ".join(f"{like} from rank {other}" for other, like in receives.items())
        wanted = list(letters.values())
        # With turns nobody posts before the baton is passed on, so this look is no race.
        waits = self._parking is not None and not self._world.has(wanted)
        with self._parking.away() if self._parking is not None and waits else nullcontext():
            tensors = self._world.collect(self.rank, wanted, awaited)
        received = dict(zip(letters, tensors, strict=True))
        for other, x in received.items():
            check_like(x, receives[other], other)
            if self._parking is not None:
                self._parking.adopt(x.untyped_storage())
        return {other: x.to(receives[other].device) for other, x in received.items()}

    @contextmanager
    def turn(self) -> Iterator[None]:
        if not self._world.turns or self._is_running():
            yield
            return
        self._world.enter(self.rank)
        try:
            with self._parking.turn() if self._parking is not None else nullcontext():
                yield
        finally:
            self._world.leave(self.rank)

    def queue_turn(self) -> None:
        if self._world.turns:
            self._world.queue([self.rank])

    def _is_running(self) -> bool:
        return self.rank in self._world.inside and self.rank not in self._world.awaited

    def abort(self, reason: str) -> None:
        self._world.fail(self.rank, reason)

    def close(self) -> None:
        self._world.close(self.rank)


def line_up(comms: Sequence[Comm]) -> None:
    """Queues ranks for their turns in this order, before their threads call `turn()`.

    Without it the first thread to arrive starts. Does nothing for ranks without turns.
    """
    for comm in comms:
        comm.queue_turn()


def threads(
    num_ranks: int,
    *,
    timeout: float = 60.0,
    turns: bool = False,
    park: ParkingMedium | None = None,
    scratch: str | None = None,
) -> tuple[Comm, ...]:
    """A world of `num_ranks` ranks, one Comm for each thread.

    With `turns` only the rank inside `with comm.turn():` that holds the baton computes, and
    `timeout` is how long one rank may compute between two collectives. With `park` too, what a
    waiting rank made in its turn lies elsewhere meanwhile: `host`, CUDA tensors in pinned memory;
    `disk`, all tensors in an unlinked file in the folder `scratch`. Results are the same bits.
    CommError if `park` is asked for without `turns`.
    """
    if park is not None and not turns:
        raise CommError(f"park={park!r} needs turns=True: only a rank that waits can be parked")
    world = World(num_ranks, timeout, turns)
    lots: dict[int, Parking] = {}
    return tuple(
        ThreadComm(world, rank, None if park is None else Parking(park, scratch, lots))
        for rank in range(num_ranks)
    )


def run_threads(
    function: Callable[..., Any],
    num_ranks: int,
    *args: Any,
    timeout: float = 60.0,
    turns: bool = False,
    park: ParkingMedium | None = None,
    scratch: str | None = None,
) -> list[Any]:
    """`function(comm, *args)` on every rank of a new world of threads; results in rank order.

    The first error a rank raised itself is raised again here, with the others' as notes.
    Threads compute with the caller's grad mode.
    """
    comms = threads(num_ranks, timeout=timeout, turns=turns, park=park, scratch=scratch)
    results: list[Any] = [None] * num_ranks
    errors: list[tuple[int, BaseException]] = []
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def work(comm: Comm) -> None:
        try:
            with torch.inference_mode(inference), torch.set_grad_enabled(grad), comm.turn():
                results[comm.rank] = function(comm, *args)
        except BaseException as error:
            errors.append((comm.rank, error))
            comm.abort(f"rank {comm.rank} raised {type(error).__name__}: {error}")
        finally:
            comm.close()

    line_up(comms)
    call_vector_math()
    workers = [threading.Thread(target=work, args=(comm,), daemon=True) for comm in comms]
    for worker in workers:
        worker.start()
    _join(workers, errors, timeout)
    if errors:
        _raise_first(errors)
    return results


def call_vector_math() -> None:
    """One small call of each vector function of the CPU, before threads make their first at once.

    MKL chooses its kernels when a function is called first. Where several threads do so together,
    on Intel with AVX-512, one of them may get wrong numbers, once (pytorch issue 188792).
    """
    for dtype in (torch.float32, torch.float64):
        x = torch.linspace(0.1, 0.9, 64, dtype=dtype)
        for function in (torch.exp, torch.log, torch.sin, torch.cos, torch.tanh, torch.erf):
            function(x)
        torch.sqrt(x)


def _join(
    workers: list[threading.Thread], errors: list[tuple[int, BaseException]], timeout: float
) -> None:
    """Waits for all; after an error a rank that computes on is left behind after `timeout`."""
    given_up: float | None = None
    for rank, worker in enumerate(workers):
        while worker.is_alive():
            worker.join(0.05)
            if errors and given_up is None:
                given_up = time.monotonic() + timeout
            if given_up is not None and time.monotonic() > given_up:
                errors[0][1].add_note(f"rank {rank} did not stop within {timeout:.1f} s")
                break


def _raise_first(errors: list[tuple[int, BaseException]]) -> None:
    own = [pair for pair in errors if not isinstance(pair[1], RankLostError)]
    rank, first = (own or errors)[0]
    for other, error in errors:
        if error is not first:
            first.add_note(f"rank {other}: {type(error).__name__}: {error}")
    first.add_note(f"raised on rank {rank}")
    raise first
