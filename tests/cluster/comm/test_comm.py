"""Collectives do what they say, on threads and on processes, and a lost rank is never waited for.

Tensors: [batch, rows, columns] of unequal bands; rows is dim -2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.comm import Comm, CommError, Like, RankLostError, solo
from frieze.cluster.layout import Band, Halo, conv_rows, cut
from support.poison import nan_filled
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

FOREVER = 3600.0  # a timeout that no test survives
CPU = torch.device("cpu")


def canvas(rows: int = 23, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        2, rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).to(dtype)


def bands(comm: Comm, rows: int = 23) -> tuple[Band, ...]:
    return cut(rows, comm.size, weights=[1 + rank % 3 for rank in range(comm.size)])


def own(comm: Comm, x: Tensor) -> Tensor:
    band = bands(comm)[comm.rank]
    return x[:, band.start : band.stop]


# ---- what each collective must do; every function runs on threads and on gloo


def borrowed_rows_are_the_neighbours(comm: Comm) -> None:
    x, band = canvas(), bands(comm)[comm.rank]
    padded = torch.nn.functional.pad(x, (0, 0, 5, 5))
    for above, below in ((2, 1), (0, 2), (1, 0), (0, 0), (2, -1), (-1, 1), (-1, -1)):
        got = comm.borrow(own(comm, x), Halo(above, below), -2)
        assert torch.equal(got, padded[:, 5 + band.start - above : 5 + band.stop + below])
    transposed = comm.borrow(own(comm, x).transpose(0, 1), Halo(1, 1), 0)
    expected = padded[:, 4 + band.start : 6 + band.stop].transpose(0, 1)
    assert torch.equal(transposed, expected)


def halos_may_differ_by_rank(comm: Comm) -> None:
    x, band = canvas(), bands(comm)[comm.rank]
    geometry = {"kernel": 3, "stride": 2, "padding": (0, 1)}
    halos = [conv_rows(b, 23, **geometry)[1] for b in bands(comm)]
    got = comm.borrow(own(comm, x), halos[comm.rank], -2, halos)
    padded = torch.nn.functional.pad(x, (0, 0, 5, 5))
    halo = halos[comm.rank]
    expected = padded[:, 5 + band.start - halo.above : 5 + band.stop + halo.below]
    assert torch.equal(got, expected)


def giving_back_is_the_adjoint_of_gathering(comm: Comm) -> None:
    """<gather_rows(x), y> = <x, give_back(y)>, summed over ranks; runs of others' rows, or none."""
    x, parts = own(comm, canvas()), bands(comm)
    runs = [Band(3, 20), Band(0, 0), Band(0, 23), Band(22, 23), Band(6, 9)]
    held = [runs[rank % 5] for rank in range(comm.size)]
    wanted = [range(run.start, run.stop) for run in held]
    rows = comm.gather_rows(x, parts, wanted, -2)
    generator = torch.Generator().manual_seed(comm.rank)
    y = torch.randn(rows.shape, dtype=torch.float64, generator=generator)
    back = comm.give_back(y, parts, held, -2)
    assert back.shape == x.shape
    left, right = comm.all_reduce(torch.stack([(rows * y).sum(), (x * back).sum()]))
    assert abs(left - right) <= EXACT_FLOAT64
    counts = comm.give_back(torch.ones_like(rows), parts, held, -2)
    band = parts[comm.rank]
    expected = [sum(r.start <= row < r.stop for r in held) for row in range(band.start, band.stop)]
    assert counts[0, :, 0].tolist() == expected
    # Control: who keeps what lies on others' rows gives nothing back.
    kept = [
        Band(max(r.start, b.start), max(r.start, b.start)) for r, b in zip(held, parts, strict=True)
    ]
    nothing = comm.give_back(y[:, :0], parts, kept, -2)
    left, right = comm.all_reduce(torch.stack([(rows * y).sum(), (x * nothing).sum()]))
    assert abs(left - right) > CONTROL


def gathered_rows_are_the_canvases(comm: Comm) -> None:
    """Rows that are near, far, evenly spaced, scattered, one's own or none; each travels once."""
    x, parts, before = canvas(), bands(comm), comm.num_bytes_sent
    wishes: list[list[int]] = [[*range(3, 20)], [0, 1, 22], [*range(1, 23, 4)], [], [7, 11, 12]]
    wanted = [wishes[rank % 5] for rank in range(comm.size)]
    got = comm.gather_rows(own(comm, x), parts, wanted, -2)
    assert torch.equal(got, x[:, wanted[comm.rank]])
    band, others = parts[comm.rank], (set(range(comm.size)) - {comm.rank})
    lent = sum(band.start <= row < band.stop for other in others for row in wanted[other])
    assert comm.num_bytes_sent - before == lent * 2 * 3 * 8
    turned = comm.gather_rows(own(comm, x).transpose(0, 1), parts, wanted, 0)
    assert torch.equal(turned, x[:, wanted[comm.rank]].transpose(0, 1))
    kept = own(comm, x)
    none = comm.gather_rows(kept, parts, [list(range(b.start, b.stop)) for b in parts], 1)
    assert none.data_ptr() == kept.data_ptr()  # its own rows are not copied


def a_ring_brings_every_band_round(comm: Comm) -> None:
    x, parts = canvas(dtype=torch.bfloat16), bands(comm)
    held = own(comm, x)
    for step in range(1, comm.size + 1):
        source = (comm.rank - step) % comm.size
        like = Like.of(x).with_size(1, parts[source].rows)
        pending = comm.ring_pass(held, like)
        held = pending.only()
        assert pending.only() is held
        assert torch.equal(held, x[:, parts[source].start : parts[source].stop])


def all_to_all_takes_unequal_parts(comm: Comm) -> None:
    parts = [
        torch.full((other, comm.rank + 1), float(10 * comm.rank + other))
        for other in range(comm.size)
    ]
    likes = [Like((comm.rank, other + 1), torch.float32, CPU) for other in range(comm.size)]
    for other, got in enumerate(comm.all_to_all(parts, likes)):
        assert torch.equal(got, torch.full((comm.rank, other + 1), float(10 * other + comm.rank)))


def gathers_and_broadcasts_agree(comm: Comm) -> None:
    for dtype in (torch.float16, torch.int64, torch.bool, torch.complex64, torch.uint8):
        mine = torch.tensor(comm.rank).to(dtype)
        gathered = comm.all_gather(mine)
        assert torch.equal(torch.stack(gathered), torch.arange(comm.size).to(dtype))
    for source in range(comm.size):
        x = torch.full((source, 2), 7.0) if comm.rank == source else None
        assert torch.equal(comm.broadcast(x, source), torch.full((source, 2), 7.0))
        like = Like((source, 2), torch.float32, CPU)
        assert torch.equal(comm.broadcast(x, source, like), torch.full((source, 2), 7.0))
        thing = {"rank": source, "text": "x" * source}
        assert comm.broadcast_object(thing if comm.rank == source else None, source) == thing
    assert comm.all_gather_object(["r" * comm.rank, comm.rank]) == [
        ["r" * rank, rank] for rank in range(comm.size)
    ]
    comm.barrier()


def reductions_hold_the_same_bits_everywhere(comm: Comm) -> None:
    mine = torch.randn(1000, generator=torch.Generator().manual_seed(comm.rank))
    every = comm.all_gather(mine)
    in_order = every[0].clone()
    for part in every[1:]:
        in_order = in_order + part
    total = comm.all_reduce(mine)
    assert torch.equal(total, in_order)
    assert all(torch.equal(total, other) for other in comm.all_gather(total))
    assert torch.equal(comm.all_reduce(mine, "max"), torch.stack(every).amax(0))
    assert torch.equal(comm.all_reduce(mine, "min"), torch.stack(every).amin(0))
    if comm.size > 2:  # control: another order gives other bits
        backwards = every[-1].clone()
        for part in every[-2::-1]:
            backwards = backwards + part
        assert not torch.equal(total, backwards)


def groups_talk_among_themselves(comm: Comm) -> None:
    odd_or_even = [rank for rank in range(comm.size) if rank % 2 == comm.rank % 2]
    group = comm.group(odd_or_even[::-1])
    assert (group.size, group.rank) == (len(odd_or_even), odd_or_even[::-1].index(comm.rank))
    members = [int(x) for x in group.all_gather(torch.tensor(comm.rank))]
    assert members == odd_or_even[::-1]
    # Messages of two groups over the same ranks cross, waited for in the other order.
    everyone = comm.group(range(comm.size))
    first = comm.ring_pass(torch.tensor([1.0, comm.rank]), Like((2,), torch.float32, CPU))
    second = everyone.ring_pass(torch.tensor([2.0, comm.rank]), Like((2,), torch.float32, CPU))
    third = comm.ring_pass(torch.tensor([3.0, comm.rank]), Like((2,), torch.float32, CPU))
    before = (comm.rank - 1) % comm.size
    assert third.only().tolist() == [3, before]
    assert second.only().tolist() == [2, before]
    assert first.only().tolist() == [1, before]
    assert group.group([group.rank]).all_reduce(torch.ones(1)).item() == 1


def bytes_sent_are_counted(comm: Comm) -> None:
    x = own(comm, canvas())
    before = comm.num_bytes_sent
    comm.borrow(x, Halo(2, 1), -2)
    row, last = 2 * 3 * 8, comm.size - 1
    expected = (2 * row if comm.rank < last else 0) + (row if comm.rank > 0 else 0)
    assert comm.num_bytes_sent - before == expected


def what_was_received_is_not_the_senders_memory(comm: Comm) -> None:
    mine = torch.full((3,), float(comm.rank))
    pending = comm.ring_pass(mine, Like.of(mine))
    got = pending.only()
    expected = got.clone()
    mine.fill_(-1)
    comm.barrier()
    assert comm.size == 1 or torch.equal(got, expected)


COLLECTIVES = [
    borrowed_rows_are_the_neighbours,
    halos_may_differ_by_rank,
    giving_back_is_the_adjoint_of_gathering,
    gathered_rows_are_the_canvases,
    a_ring_brings_every_band_round,
    all_to_all_takes_unequal_parts,
    gathers_and_broadcasts_agree,
    reductions_hold_the_same_bits_everywhere,
    groups_talk_among_themselves,
    bytes_sent_are_counted,
    what_was_received_is_not_the_senders_memory,
]


def every_collective(comm: Comm) -> list[str]:
    with nan_filled():
        for check in COLLECTIVES:
            check(comm)
    return [check.__name__ for check in COLLECTIVES]


@pytest.mark.parametrize("check", COLLECTIVES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.usefixtures("nan_memory")
def test_on_threads(world: Callable, num_ranks: int, check: Callable[[Comm], None]) -> None:
    world(num_ranks)(check)


@pytest.mark.parametrize("check", COLLECTIVES, ids=lambda check: check.__name__)
def test_alone(check: Callable[[Comm], None]) -> None:
    check(solo())


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_on_processes(gloo_world: Callable, num_ranks: int) -> None:
    names = [check.__name__ for check in COLLECTIVES]
    assert gloo_world(num_ranks, every_collective) == [names] * num_ranks


# ---- calls that cannot be right


def lend_too_much(comm: Comm) -> None:
    comm.borrow(torch.zeros(1, 2 + comm.rank, 1), Halo(3, 0), -2)


def give_back_too_much(comm: Comm) -> None:
    two = [Band(0, 2), Band(2, 4)]
    comm.give_back(torch.zeros(1, 5, 1), two, [Band(0, 4), Band(0, 4)], -2)


def give_back_of_fewer(comm: Comm) -> None:
    comm.give_back(torch.zeros(1, 2, 1), [Band(0, 2), Band(2, 4)], [Band(0, 2)], -2)


def drop_too_much(comm: Comm) -> None:
    comm.borrow(torch.zeros(1, 2, 1), Halo(-2, -1), -2)


def name_a_stranger(comm: Comm) -> None:
    comm.exchange({7: torch.zeros(1)}, {})


def expect_another_shape(comm: Comm) -> None:
    comm.all_gather(torch.zeros(2 + comm.rank))


def group_of_others(comm: Comm) -> None:
    comm.group([1 - comm.rank])


def halos_of_fewer(comm: Comm) -> None:
    comm.borrow(torch.zeros(1, 4, 1), Halo(1, 1), -2, [Halo(1, 1)])


def gather_rows_in_disorder(comm: Comm) -> None:
    comm.gather_rows(torch.zeros(1, 2, 1), [Band(0, 2), Band(2, 4)], [[1, 0], []], 1)


def gather_rows_of_no_band(comm: Comm) -> None:
    comm.gather_rows(torch.zeros(1, 2, 1), [Band(0, 2), Band(2, 4)], [[], [3, 4]], 1)


def gather_rows_of_another_band(comm: Comm) -> None:
    comm.gather_rows(torch.zeros(1, 3, 1), [Band(0, 2), Band(2, 4)], [[], []], 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lend_too_much, "rank 1 needs 3 rows of rank 0, which has 2"),
        (give_back_too_much, "rank [01] gives 5 rows back, and held"),
        (give_back_of_fewer, "2 bands and 1 runs for 2 ranks"),
        (drop_too_much, "cannot drop 2 . 1 rows of a band of 2"),
        (name_a_stranger, "rank 7 is not one of the 2 ranks"),
        (expect_another_shape, "rank [01] sent [23] float32 where [23] float32 was expected"),
        (group_of_others, "cannot form a group"),
        (halos_of_fewer, "1 halos do not fit"),
        (gather_rows_in_disorder, "rank 0 wants rows .1, 0.; they must ascend"),
        (gather_rows_of_no_band, "rank 1 wants rows .3, 4.; they must ascend and lie on the bands"),
        (gather_rows_of_another_band, "has 3 rows, its band 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_that_cannot_be_right_says_so(
    world: Callable, wrong: Callable[[Comm], None], message: str
) -> None:
    with pytest.raises(CommError, match=message) as caught:
        world(2, timeout=FOREVER)(wrong)
    assert not isinstance(caught.value, RankLostError)


def shapes_that_differ(comm: Comm) -> Any:
    return comm.all_gather(torch.zeros(2 + comm.rank))


def test_processes_never_take_one_shape_for_another(gloo_world: Callable) -> None:
    outcomes = gloo_world(2, shapes_that_differ, timeout=1.0)
    assert all(isinstance(outcome, RankLostError) for outcome in outcomes)


def test_vector_math_is_called_before_ranks_that_are_threads_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from frieze.cluster.comm import rank_threads, worlds
    from frieze.cluster.fleet import LocalFleet

    heard: list[str] = []

    class Worker:
        def __init__(self, *_: Any) -> None:
            heard.append("rank")

        def join(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(rank_threads, "call_vector_math", lambda: heard.append("math"))
    rank_threads.run_threads(lambda comm: heard.append("rank"), 2)
    assert heard == ["math", "rank", "rank"]
    monkeypatch.setattr(worlds, "call_vector_math", lambda: heard.append("math"))
    with LocalFleet.launch(Worker, 2, timeout=AMPLE):
        assert heard[3:] == ["math", "rank", "rank"]
