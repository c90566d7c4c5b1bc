"""Virtual ranks: waiting ranks hold no memory, and the picture keeps its bits.

x_BCHW on a canvas of 512 rows; a band of one of eight ranks is 256 KiB.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from frieze.cluster.comm import Comm, CommError, Like, RankLostError, run_threads, threads
from frieze.cluster.layout import Halo, cut
from tolerances import AMPLE

ROWS, LAYERS = 512, 4
# One of eight bands, its halo and the mail that waits: an eighth of the whole, and some.
PARKED_FRACTION = 0.25
HELD_FRACTION = 0.5  # without parking, more than this


class Meter(TorchDispatchMode):
    """Bytes of a device's memory really held by what ops made, over the threads sharing `held`."""

    def __init__(self, device: str, held: dict[int, StorageWeakRef], peaks: list[int]) -> None:
        super().__init__()
        self.device = device
        self.held = held
        self.peaks = peaks

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {x.untyped_storage()._cdata for x in args if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if not isinstance(x, Tensor) or x.device.type != self.device:
                continue
            storage = x.untyped_storage()
            if storage._cdata not in given:
                self.held[storage._cdata] = StorageWeakRef(storage)
        self.peaks.append(self.bytes_held())
        return out

    def bytes_held(self) -> int:
        total = 0
        for key, ref in list(self.held.items()):
            storage = UntypedStorage._new_with_weak_ptr(ref.cdata)
            if storage is None:
                del self.held[key]
            else:
                total += storage.nbytes()
        return total


def draw(num_ranks: int, device: str = "cpu", **world: Any) -> tuple[Tensor, int]:
    """A stack of convolutions with halos and a shared scale, band by band; and its peak bytes."""
    seeded = torch.Generator().manual_seed(3)
    x_BCHW = torch.randn(1, 16, ROWS, 64, generator=seeded).to(device)
    weights = [torch.randn(16, 16, 3, 3, generator=seeded).to(device) / 12 for _ in range(LAYERS)]
    drawn_BCHW = torch.zeros_like(x_BCHW)
    bands = cut(ROWS, num_ranks)
    held: dict[int, StorageWeakRef] = {}
    peaks: list[int] = []

    def rank(comm: Comm) -> None:
        band = bands[comm.rank]
        with Meter(device, held, peaks):
            y = x_BCHW[:, :, band.start : band.stop].clone()
            for weight in weights:
                wide = comm.borrow(y, Halo(1, 1), -2)
                flipped = F.silu(F.conv2d(wide, weight, padding=(0, 1))).flip(-1)
                largest = comm.all_reduce(flipped.abs().amax().reshape(1), "max")
                y = y + flipped / largest
            drawn_BCHW[:, :, band.start : band.stop] = y

    run_threads(rank, num_ranks, turns=True, **world)
    return drawn_BCHW, max(peaks)


def test_parked_ranks_hold_a_fraction_of_the_memory_and_keep_their_bits(tmp_path: Path) -> None:
    _, whole = draw(1)
    held, bytes_held = draw(8)
    parked, bytes_parked = draw(8, park="disk", scratch=str(tmp_path))
    assert torch.equal(parked, held)
    assert bytes_parked < PARKED_FRACTION * whole
    assert bytes_held > HELD_FRACTION * whole
    assert os.listdir(tmp_path) == []


def test_host_memory_is_no_parking_place_for_host_tensors() -> None:
    held, bytes_held = draw(4)
    same, bytes_same = draw(4, park="host")
    assert torch.equal(same, held)
    assert bytes_same == bytes_held


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["host", "disk"])
def test_a_device_holds_a_fraction_of_the_canvas(place: str) -> None:
    _, whole = draw(1, device="cuda")
    held, _ = draw(8, device="cuda")
    parked, bytes_parked = draw(8, device="cuda", park=place)
    assert torch.equal(parked, held)
    assert bytes_parked < PARKED_FRACTION * whole


def large(value: float) -> Tensor:
    return torch.full((256, 256), float(value))


def parked_world(function: Callable[[Comm], Any], num_ranks: int = 3, **world: Any) -> list[Any]:
    return run_threads(function, num_ranks, turns=True, park="disk", timeout=AMPLE, **world)


def test_storages_are_emptied_once_and_their_views_restored() -> None:
    seen: list[list[int]] = []

    def rank(comm: Comm) -> None:
        x = large(comm.rank)
        views = [x.T, x[3:, ::2], x.view(-1), x.expand(2, 256, 256)]
        before = [view.clone() for view in views]
        storages = [x.untyped_storage(), *(copy.untyped_storage() for copy in before)]
        seen.append([])
        if comm.rank == 1:  # rank 0 waits, as a look into its storages shows
            seen[-1] = [storage.nbytes() for storage in waiting]
        else:
            waiting.extend(storages)
        comm.barrier()
        assert all(torch.equal(view, copy) for view, copy in zip(views, before, strict=True))
        assert {view.untyped_storage()._cdata for view in views} == {x.untyped_storage()._cdata}

    waiting: list[UntypedStorage] = []
    parked_world(rank, 2)
    assert seen[1] == [0] * 5


def test_what_is_older_than_the_turn_stays() -> None:
    weight = torch.nn.Parameter(large(2.0), requires_grad=False)

    def rank(comm: Comm) -> float:
        view = weight.detach().T  # made in the turn, of a storage that is not
        comm.barrier()
        view.add_(0.0)
        comm.barrier()
        return float(weight.sum() + view.sum()) + weight.untyped_storage().nbytes()

    expected = 2 * 2.0 * 256 * 256 + 4 * 256 * 256
    assert parked_world(rank) == [expected] * 3


def test_a_cache_that_ranks_share_is_brought_back_for_good() -> None:
    @lru_cache
    def cached(value: float) -> Tensor:
        return large(value)

    def rank(comm: Comm) -> float:
        total = 0.0
        for _ in range(3):
            total += float(cached(1.5).sum())
            comm.barrier()
        return total

    assert parked_world(rank) == [3 * 1.5 * 256 * 256] * 3


def test_mail_in_flight_and_what_numpy_looks_into_survive() -> None:
    def rank(comm: Comm) -> None:
        pixels = large(7.0 + comm.rank).numpy()
        held = large(comm.rank)
        for step in range(1, comm.size + 1):
            pending = comm.ring_pass(held, Like.of(held))
            comm.barrier()
            held = pending.only()
            assert torch.equal(held, large((comm.rank - step) % comm.size))
        assert (pixels == 7.0 + comm.rank).all()

    parked_world(rank)


def test_after_a_failure_every_rank_has_its_tensors_and_no_scratch_is_left(tmp_path: Path) -> None:
    intact = []

    def rank(comm: Comm) -> None:
        x = large(comm.rank)
        if comm.rank == 2:
            raise ValueError("no such layer")
        try:
            comm.barrier()
        except RankLostError:
            intact.append(torch.equal(x, large(comm.rank)))
            raise

    num_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="no such layer"):
        parked_world(rank, scratch=str(tmp_path))
    assert intact == [True, True]
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= num_files


def test_a_full_scratch_folder_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def rank(comm: Comm) -> None:
        x = large(comm.rank)
        try:
            comm.barrier()
        finally:
            assert torch.equal(x, large(comm.rank))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"cannot park 262144 bytes .* No space left on device"):
        parked_world(rank, scratch=str(tmp_path))


def test_the_next_turn_leaves_the_last_ones_tensors_alone() -> None:
    comms = threads(2, turns=True, park="disk")
    kept: dict[int, Tensor] = {}

    def verb(comm: Comm) -> None:
        with comm.turn():
            if comm.rank in kept:
                assert all(x.untyped_storage().nbytes() for x in kept.values())
            else:
                kept[comm.rank] = large(comm.rank)
            comm.barrier()

    for _ in range(2):
        workers = [threading.Thread(target=verb, args=(comm,)) for comm in comms]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert all(torch.equal(x, large(rank)) for rank, x in kept.items())


def test_parking_without_turns_is_refused() -> None:
    with pytest.raises(CommError, match="park='disk' needs turns=True"):
        threads(2, park="disk")
