"""How ranks talk: one primitive, `post`, and every collective derived from it.

Sums are taken in rank order from an all-gather, so every rank holds the same bits.
`dim` is the row dim of a tensor, whatever its shape.
"""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from ..layout import Band, Halo
from .messages import MOST_BYTES, CommError, Like, Pending, check_like, from_bytes, in_bytes
from .selection import select


class Comm(ABC):
    """One rank's view of the others.

    Errors: CommError if a call cannot be right; RankLostError if a rank died, raised or did not
    answer within `timeout` seconds, after which this world is finished on every rank.
    """

    def __init__(
        self, rank: int, size: int, timeout: float, device: torch.device | str = "cpu"
    ) -> None:
        self.rank = rank
        self.size = size
        self.timeout = timeout
        self.device = torch.device(device)  # of the tensors that carry JSON
        self.num_bytes_sent = 0
        self.seconds_waiting = 0.0  # for what others send, or their turns

    # ---- the primitive

    def post(
        self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], *, tag: int = 0
    ) -> Pending:
        """Starts sending to and receiving from the ranks named; does not block.

        Between two ranks messages arrive in the order they were posted. What a rank sends to
        itself is handed over as it is, without a copy.
        """
        for other in (*sends, *receives):
            if not 0 <= other < self.size:
                raise CommError(f"rank {other} is not one of the {self.size} ranks")
        if (self.rank in sends) != (self.rank in receives):
            raise CommError(f"rank {self.rank} must both send to itself and receive, or neither")
        own = {self.rank: sends[self.rank].detach()} if self.rank in sends else {}
        for rank, x in own.items():
            check_like(x, receives[rank], rank)
        away = {r: x.detach() for r, x in sends.items() if r != self.rank}
        self.num_bytes_sent += sum(x.numel() * x.element_size() for x in away.values())
        if self.size == 1:
            return Pending(lambda: own)
        expected = {r: like for r, like in receives.items() if r != self.rank}
        pending = self._post(away, expected, tag)
        return Pending(lambda: own | self._await(pending))

    def _await(self, pending: Pending) -> dict[int, Tensor]:
        began = time.perf_counter()
        received = pending.wait()
        self.seconds_waiting += time.perf_counter() - began
        return received

    @abstractmethod
    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        """`post` between different ranks; messages of one tag match in order."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Ends this world: every other rank's next or present wait raises RankLostError."""

    @abstractmethod
    def close(self) -> None:
        """Leaves the world and frees what it held; waits for nobody. May be called twice."""

    def turn(self) -> AbstractContextManager[None]:
        """While inside, this rank takes its turns (only `threads(n, turns=True)` has turns)."""
        return nullcontext()

    def queue_turn(self) -> None:  # noqa: B027  nothing to do where there are no turns
        """Queues this rank for its turn before its thread calls `turn()`: fixes who is first."""

    def exchange(
        self, sends: Mapping[int, Tensor], receives: Mapping[int, Like]
    ) -> dict[int, Tensor]:
        """Sends and receives, then waits."""
        return self.post(sends, receives).wait()

    # ---- rows

    def borrow(
        self, x: Tensor, halo: Halo, dim: int, halos: Sequence[Halo] | None = None
    ) -> Tensor:
        """This band with `halo.above` rows of rank-1 on top and `halo.below` of rank+1 below.

        Zeros beyond the canvas; a negative side drops own rows. `halos` are those of all ranks
        where they differ. CommError if this band is shorter than what a neighbour asks for.
        """
        rows, like = x.shape[dim], Like.of(x)
        sends, receives = {}, {}
        for other, lent, borrowed in self._neighbours(halo, halos):
            if lent > rows:
                raise CommError(
                    f"rank {other} needs {lent} rows of rank {self.rank}, which has {rows}; "
                    "cut taller bands or use fewer ranks"
                )
            if lent > 0:
                sends[other] = x.narrow(dim, 0 if other < self.rank else rows - lent, lent)
            if borrowed > 0:
                receives[other] = like.with_size(dim, borrowed)
        received = self.exchange(sends, receives)
        parts = [
            *_outside(received.get(self.rank - 1), x, dim, halo.above),
            _drop(x, dim, -halo.above, -halo.below),
            *_outside(received.get(self.rank + 1), x, dim, halo.below),
        ]
        return torch.cat(parts, dim) if len(parts) > 1 else parts[0]

    def _neighbours(self, halo: Halo, halos: Sequence[Halo] | None) -> list[tuple[int, int, int]]:
        """(rank, rows lent to it, rows borrowed from it) for the rank above and the one below."""
        every = [halo] * self.size if halos is None else halos
        if len(every) != self.size or every[self.rank] != halo:
            raise CommError(f"{len(every)} halos do not fit rank {self.rank} of {self.size}")
        found = []
        if self.rank > 0:
            found.append((self.rank - 1, max(every[self.rank - 1].below, 0), max(halo.above, 0)))
        if self.rank + 1 < self.size:
            found.append((self.rank + 1, max(every[self.rank + 1].above, 0), max(halo.below, 0)))
        return found

    def gather_rows(
        self, x: Tensor, bands: Sequence[Band], wanted: Sequence[Sequence[int]], dim: int
    ) -> Tensor:
        """Rows `wanted[rank]` of the canvas, whichever ranks hold them, in one exchange.

        `x` is this rank's band along `dim`.  `bands` and `wanted` are those of every rank, told
        alike on all; rows are numbers of the canvas in ascending order, or none.  A row travels
        once to each rank that wants it and lacks it.  The result may be a view of `x`.
        CommError if the bands do not fit `x`, or a row lies on no band.
        """
        shares = _shares_of(bands, wanted, self.size)
        own, like = bands[self.rank], Like.of(x)
        if x.shape[dim] != own.rows:
            raise CommError(f"rank {self.rank} has {x.shape[dim]} rows, its band {own.rows}")

        def lent(to: int) -> Tensor:
            return select(x, [row - own.start for row in shares[to][self.rank]], dim)

        others = [rank for rank in range(self.size) if rank != self.rank]
        parts = self.exchange(
            {to: lent(to) for to in others if shares[to][self.rank]},
            {
                source: like.with_size(dim, len(rows))
                for source, rows in enumerate(shares[self.rank])
                if rows and source != self.rank
            },
        )
        parts = {**parts, self.rank: lent(self.rank)}
        found = [parts[source] for source in sorted(parts) if shares[self.rank][source]]
        return torch.cat(found, dim) if len(found) > 1 else (found or [parts[self.rank]])[0]

    def borrow_around(self, x: Tensor, halo: Halo, dim: int) -> Tensor:
        """`borrow` on a canvas whose first and last rows are neighbours, of the same halo each."""
        rows, like = x.shape[dim], Like.of(x)
        if max(halo.above, halo.below) > rows:
            raise CommError(
                f"rank {self.rank} has {rows} rows, and neighbours need "
                f"{max(halo.above, halo.below)}; cut taller bands or use fewer ranks"
            )
        above, below = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        parts = [_drop(x, dim, -halo.above, -halo.below)]
        if halo.above > 0:
            lent = x.narrow(dim, rows - halo.above, halo.above)
            likes = {above: like.with_size(dim, halo.above)}
            parts.insert(0, self.exchange({below: lent}, likes)[above])
        if halo.below > 0:
            lent, likes = x.narrow(dim, 0, halo.below), {below: like.with_size(dim, halo.below)}
            parts.append(self.exchange({above: lent}, likes)[below])
        return torch.cat(parts, dim)

    def give_back(self, x: Tensor, bands: Sequence[Band], held: Sequence[Band], dim: int) -> Tensor:
        """The adjoint of `gather_rows`: rows of `x` are added onto the rows of their owners.

        `x` are the rows `held[rank]` of the canvas; `bands` and `held` are those of every rank.
        Every rank gets its band, summed in the order of the ranks that held a part of it.
        CommError if `x` has other rows than it is said to hold.
        """
        if len(bands) != self.size or len(held) != self.size:
            raise CommError(f"{len(bands)} bands and {len(held)} runs for {self.size} ranks")
        own, mine, like = bands[self.rank], held[self.rank], Like.of(x)
        if x.shape[dim] != mine.rows:
            raise CommError(f"rank {self.rank} gives {x.shape[dim]} rows back, and held {mine}")

        def shared(band: Band, run: Band) -> Band:
            start = min(max(band.start, run.start), band.stop)
            return Band(start, max(start, min(band.stop, run.stop)))

        given = {rank: shared(band, mine) for rank, band in enumerate(bands)}
        taken = {rank: shared(own, run) for rank, run in enumerate(held)}
        parts = self.exchange(
            {to: x.narrow(dim, r.start - mine.start, r.rows) for to, r in given.items() if r.rows},
            {source: like.with_size(dim, r.rows) for source, r in taken.items() if r.rows},
        )
        total = x.new_zeros(like.with_size(dim, own.rows).shape)
        for source, part in sorted(parts.items()):
            total.narrow(dim, taken[source].start - own.start, part.shape[dim]).add_(part)
        return total

    # ---- everybody

    def ring_pass(self, x: Tensor, like: Like) -> Pending:
        """Starts sending `x` to rank+1 and receiving from rank-1; `.only()` is what arrived."""
        return self.post({(self.rank + 1) % self.size: x}, {(self.rank - 1) % self.size: like})

    def all_to_all(self, parts: Sequence[Tensor], likes: Sequence[Like]) -> list[Tensor]:
        """Part i goes to rank i; returns what each rank sent here, in rank order, sizes free."""
        received = self.exchange(dict(enumerate(parts)), dict(enumerate(likes)))
        return [received[rank] for rank in range(self.size)]

    def all_gather(self, x: Tensor, likes: Sequence[Like] | None = None) -> list[Tensor]:
        """Every rank's tensor in rank order; `likes` where shapes differ."""
        likes = [Like.of(x)] * self.size if likes is None else likes
        return self.all_to_all([x] * self.size, likes)

    def all_reduce(self, x: Tensor, op: Literal["sum", "max", "min"] = "sum") -> Tensor:
        """A new tensor, reduced in rank order: the same bits on every rank."""
        reduce: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "sum": torch.add,
            "max": torch.maximum,
            "min": torch.minimum,
        }
        total, *others = self.all_gather(x)
        if not others:
            return total.clone()
        for other in others:
            total = reduce[op](total, other)
        return total

    def broadcast(self, x: Tensor | None, source: int, like: Like | None = None) -> Tensor:
        """The source's tensor on every rank; `like` is given by all ranks or by none."""
        if like is None:
            told = self.broadcast_object(None if x is None else Like.of(x).as_json(), source)
            like = Like.of(x) if x is not None else told and Like.from_json(told)
        if self.rank != source:
            return self.exchange({}, {source: like})[source]
        if x is None:
            raise CommError(f"rank {source} broadcasts and must give a tensor")
        self.exchange({r: x for r in range(self.size) if r != source}, {})
        return x

    def broadcast_object(self, obj: Any, source: int) -> Any:
        """The source's JSON value on every rank; for small things."""
        payload = in_bytes(obj, self.device) if self.rank == source else None
        length = None if payload is None else torch.tensor([payload.numel()], device=self.device)
        length = self.broadcast(length, source, Like((1,), torch.int64, self.device))
        payload = self.broadcast(payload, source, self._bytes_like(length))
        return obj if self.rank == source else from_bytes(payload)

    def all_gather_object(self, obj: Any) -> list[Any]:
        """Every rank's JSON value in rank order; for small things."""
        payload = in_bytes(obj, self.device)
        lengths = self.all_gather(torch.tensor([payload.numel()], device=self.device))
        gathered = self.all_gather(payload, [self._bytes_like(length) for length in lengths])
        return [from_bytes(part) for part in gathered]

    def _bytes_like(self, length: Tensor) -> Like:
        if not 0 <= (size := int(length.item())) <= MOST_BYTES:
            raise CommError(f"a rank announced {size} bytes of JSON; at most {MOST_BYTES} work")
        return Like((size,), torch.uint8, self.device)

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        self.all_gather(torch.zeros(1, dtype=torch.uint8, device=self.device))

    def group(self, ranks: Sequence[int]) -> Comm:
        """A communicator of some of these ranks, numbered in the order given; all of them call."""
        if self.rank not in ranks or len(set(ranks)) != len(ranks):
            raise CommError(f"rank {self.rank} cannot form a group of ranks {list(ranks)}")
        if not all(0 <= rank < self.size for rank in ranks):
            raise CommError(f"group {list(ranks)} names a rank beyond the {self.size} there are")
        return SoloComm(self.timeout, self.device) if len(ranks) == 1 else GroupComm(self, ranks)


class SoloComm(Comm):
    """A world of one rank: everything it sends, it keeps."""

    def __init__(self, timeout: float = 60.0, device: torch.device | str = "cpu") -> None:
        super().__init__(0, 1, timeout, device)

    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        raise AssertionError("a world of one has nobody to post to")

    def abort(self, reason: str) -> None:
        pass

    def close(self) -> None:
        pass


class GroupComm(Comm):
    """Some ranks of another communicator, renumbered; its messages carry a tag of their own."""

    def __init__(self, parent: Comm, ranks: Sequence[int]) -> None:
        super().__init__(ranks.index(parent.rank), len(ranks), parent.timeout, parent.device)
        self._parent = parent
        self._ranks = tuple(ranks)
        self._index = {rank: i for i, rank in enumerate(ranks)}
        self._tag = zlib.crc32(repr(self._ranks).encode())

    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        pending = self._parent.post(
            {self._ranks[i]: x for i, x in sends.items()},
            {self._ranks[i]: like for i, like in receives.items()},
            tag=self._tag ^ tag,
        )
        return Pending(lambda: {self._index[rank]: x for rank, x in pending.wait().items()})

    def turn(self) -> AbstractContextManager[None]:
        return self._parent.turn()

    def abort(self, reason: str) -> None:
        self._parent.abort(reason)

    def close(self) -> None:
        """Nothing: the parent owns the connections."""


def _shares_of(
    bands: Sequence[Band], wanted: Sequence[Sequence[int]], size: int
) -> list[list[list[int]]]:
    """Rows that each rank wants, by the rank that holds them: shares[to][source]."""
    if len(bands) != size or len(wanted) != size:
        raise CommError(f"{len(bands)} bands and {len(wanted)} wishes for {size} ranks")
    shares = [
        [[row for row in rows if band.start <= row < band.stop] for band in bands]
        for rows in wanted
    ]
    for rank, rows in enumerate(wanted):
        if sorted({row for found in shares[rank] for row in found}) != list(rows):
            raise CommError(
                f"rank {rank} wants rows {list(rows)[:20]}; they must ascend and lie on the bands "
                f"{[(band.start, band.stop) for band in bands]}"
            )
    return shares


def _outside(rows: Tensor | None, x: Tensor, dim: int, num_rows: int) -> list[Tensor]:
    """Borrowed rows, or the zeros that lie beyond the canvas; nothing where none are asked for."""
    if num_rows <= 0:
        return []
    return [x.new_zeros(Like.of(x).with_size(dim, num_rows).shape) if rows is None else rows]


def _drop(x: Tensor, dim: int, first: int, last: int) -> Tensor:
    first, last = max(first, 0), max(last, 0)
    if first + last > x.shape[dim]:
        raise CommError(f"cannot drop {first} + {last} rows of a band of {x.shape[dim]}")
    return x.narrow(dim, first, x.shape[dim] - first - last)
