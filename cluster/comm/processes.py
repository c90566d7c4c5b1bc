"""Ranks as processes: torch.distributed's point-to-point calls (gloo or nccl) on a private store.

A process that takes a rank's place on a connection is found out before anything else is said.

No default process group is touched, so worlds may follow one another in one process. A rank
that fails says why in the store and drops its connections; the others see either.
"""

from __future__ import annotations

import hmac
import queue
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .collectives import Comm
from .messages import CommError, Like, Pending, RankLostError
from .rendezvous import Rendezvous, one_line

HEAR_SECONDS = 0.25  # between looks at the store while waiting
PUBLISH_SECONDS = 1.0  # how long an abort may take to say why
RAISED = "!"  # marks the reason of a rank that said itself why it gave up


@dataclass
class Posted:
    """An exchange under way; tensors are kept alive until it has ended."""

    sent: dict[int, Tensor]
    received: dict[int, Tensor]
    receives: Mapping[int, Like]
    works: list[tuple[int, str, Any]] = field(default_factory=list)  # rank, awaited, torch's Work
    waiting_for: tuple[int | None, str] = (None, "")
    error: str | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def finish(self, timeout: float) -> None:
        """Blocks until all has arrived and left; lets go of each Work: they keep connections."""
        began = time.monotonic()
        while self.works:
            other, awaited, work = self.works.pop()
            self.waiting_for = (other, awaited)
            left = max(timeout - (time.monotonic() - began), 0.001)
            try:
                work.wait(timedelta(seconds=left))
            except RuntimeError as error:
                self.error = one_line(error)
                self.works.clear()
            del work
        self.ended.set()


class DistributedComm(Comm):
    """A rank of a world of processes."""

    def __init__(
        self,
        rank: int,
        size: int,
        *,
        store: Any,
        address: str,
        device: torch.device | str = "cpu",
        timeout: float = 60.0,
        backend: str | None = None,
    ) -> None:
        by_device = "nccl" if torch.device(device).type == "cuda" else "gloo"
        self._is_nccl = (backend or by_device) == "nccl"
        super().__init__(rank, size, timeout, device if self._is_nccl else "cpu")
        self._posted: dict[int, Posted] = {}
        self._num_posts = 0
        self._lost: RankLostError | None = None
        self._group: Any = None
        self._waiter: queue.SimpleQueue[Posted | None] = queue.SimpleQueue()
        began = time.monotonic()
        self._rendezvous = Rendezvous(rank, size, store, timeout)
        try:
            self._group = self._open_group(address)
        except (RuntimeError, OSError) as error:
            raise self._fail(None, "connections to all ranks", began, one_line(error)) from None
        threading.Thread(target=_wait_for_posts, args=(self._waiter, timeout), daemon=True).start()
        self._prove()
        self.num_bytes_sent = 0

    def _prove(self) -> None:
        """Every rank shows every other that it has met all here, and returns when all have."""
        began, proof = time.monotonic(), self._rendezvous.proof
        sent = {
            rank: torch.frombuffer(bytearray(proof(self.rank, rank)), dtype=torch.uint8)
            for rank in range(self.size)
            if rank != self.rank
        }
        sent = {rank: x.to(self.device) for rank, x in sent.items()}
        likes = {rank: Like.of(x) for rank, x in sent.items()}
        for rank, x in sorted(self.exchange(sent, likes).items()):
            if not hmac.compare_digest(x.cpu().numpy().tobytes(), proof(rank, self.rank)):
                raise self._fail(rank, f"rank {rank}", began, "another process took its place")

    def _open_group(self, address: str) -> Any:
        limit = timedelta(seconds=self.timeout)
        if self._is_nccl:
            options = dist.ProcessGroupNCCL.Options()
            # Its watchdog ends the process; our own, shorter wait says what was awaited first.
            options._timeout = 2 * limit + timedelta(seconds=60)
            store = self._rendezvous.prefixed("nccl")
            return dist.ProcessGroupNCCL(store, self.rank, self.size, options)
        gloo = dist.ProcessGroupGloo
        options = gloo._Options()  # type: ignore[attr-defined]
        options._timeout = limit
        options._devices = [gloo.create_device(hostname=address)]
        return gloo(self._rendezvous.prefixed("gloo"), self.rank, self.size, options)

    # ---- messages

    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        self._check_open()
        posted = Posted(
            {rank: x.to(self._carrier(x.device)).contiguous() for rank, x in sends.items()},
            {
                rank: torch.empty(like.shape, dtype=like.dtype, device=self._carrier(like.device))
                for rank, like in receives.items()
            },
            receives,
        )
        number = self._num_posts
        self._num_posts += 1
        self._posted[number] = posted
        self._start(posted, tag)
        return Pending(lambda: self._finish(number))

    def _start(self, posted: Posted, tag: int) -> None:
        """Empty tensors do not travel: both sides know their shape."""
        calls = [
            (rank, x, "send", f"rank {rank} to take {Like.of(x)}")
            for rank, x in posted.sent.items()
            if x.numel()
        ] + [
            (rank, x, "recv", f"{Like.of(x)} from rank {rank}")
            for rank, x in posted.received.items()
            if x.numel()
        ]
        began, other, awaited = time.monotonic(), None, ""
        try:
            if calls and self._is_nccl:
                self._group._start_coalescing()
            for other, x, call, awaited in calls:
                wire = [x.view(-1).view(torch.uint8)]
                work = getattr(self._group, call)(wire, other, _tag(tag, x))
                posted.works.append((other, awaited, work))
            if calls and self._is_nccl:
                awaited = "; ".join(awaited for *_, awaited in calls)
                posted.works[:] = [(calls[-1][0], awaited, self._group._end_coalescing())]
        except RuntimeError as error:
            work = None
            raise self._fail(other, awaited, began, one_line(error)) from None

    def _finish(self, number: int) -> dict[int, Tensor]:
        """Waits on another thread: torch's wait hears neither an abort nor an interrupt."""
        self._check_open()
        began, posted = time.monotonic(), self._posted.pop(number)
        if posted.works:
            self._waiter.put(posted)
            while not posted.ended.wait(HEAR_SECONDS):
                self._check_peers(posted, began)
        if posted.error is not None:
            raise self._fail(*posted.waiting_for, began, posted.error)
        return {rank: x.to(posted.receives[rank].device) for rank, x in posted.received.items()}

    def _check_peers(self, posted: Posted, began: float) -> None:
        self._check_open()
        if self._rendezvous.reason() is not None:
            raise self._fail(None, posted.waiting_for[1], began, "this world has ended")

    def _carrier(self, device: torch.device) -> torch.device:
        return device if self._is_nccl else torch.device("cpu")

    # ---- the end

    def _check_open(self) -> None:
        if self._lost is not None:
            raise RankLostError(str(self._lost), self._lost.rank)
        if self._group is None:
            raise CommError(f"rank {self.rank} has closed this world")

    def _fail(self, other: int | None, awaited: str, began: float, error: str) -> RankLostError:
        """Names what was awaited and the first failure on record; lets every rank know."""
        seconds = time.monotonic() - began
        text = f"rank {self.rank} waited {seconds:.1f} s for {awaited}: {error}"
        lost, first = self._rendezvous.publish(other, text)
        if lost != other or first.startswith(RAISED):
            text = f"{text}; first of all, {first.removeprefix(RAISED)}"
        self._lost = RankLostError(text, lost)
        self._drop()
        return self._lost

    def _drop(self) -> None:
        # Works keep connections open, so they go first.
        for posted in self._posted.values():
            posted.works.clear()
        self._posted.clear()
        self._waiter.put(None)
        if self._is_nccl and self._group is not None:
            self._group.abort()
        self._group = None

    def abort(self, reason: str) -> None:
        """From any thread: a wait under way on this rank ends at once, on others soon after."""
        if self._lost is None and self._group is not None:
            # The rank that keeps the store may be the one that hangs.
            record = (self.rank, RAISED + reason)
            said = threading.Thread(target=self._rendezvous.publish, args=record, daemon=True)
            said.start()
            said.join(PUBLISH_SECONDS)
            self._lost = RankLostError(reason, self.rank)
            self._drop()

    def close(self) -> None:
        self._drop()
        self._rendezvous.leave()


def _wait_for_posts(posts: queue.SimpleQueue[Posted | None], timeout: float) -> None:
    while (posted := posts.get()) is not None:
        posted.finish(timeout)
        del posted


def _tag(tag: int, x: Tensor) -> int:
    """A tag of the size too: a tensor of another size is never taken for the one awaited."""
    return zlib.crc32(f"{tag} {Like.of(x)}".encode()) & 0x7FFFFFFF
