"""What the threads of one world share: mail, the baton that makes turns, and the first failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from .messages import CommError, RankLostError

Letter = tuple[int, int, int, int]  # source, destination, tag, sequence number


class World:
    """One world of ranks as threads; every public call may come from any of them."""

    def __init__(self, num_ranks: int, timeout: float, turns: bool) -> None:
        self.num_ranks = num_ranks
        self.timeout = timeout
        self.turns = turns
        self.changed = threading.Condition()
        self.mail: dict[Letter, Tensor] = {}
        self.failure: tuple[int | None, str] | None = None
        self.closed: set[int] = set()
        self.awaited: dict[int, list[Letter]] = {}  # by waiting rank; empty list: only the baton
        self.inside: set[int] = set()  # ranks in a turn
        self.baton: int | None = None
        self.moved = time.monotonic()

    def deliver(self, rank: int, letters: Mapping[Letter, Tensor]) -> None:
        with self.changed:
            self.check()
            self._check_turn(rank)
            self.mail.update(letters)
            self.changed.notify_all()

    def collect(self, rank: int, letters: list[Letter], awaited: str) -> list[Tensor]:
        """Blocks until every letter is here; with turns, others compute meanwhile."""
        with self.changed:
            self._check_turn(rank)
            if not self._arrived(letters):
                self.awaited[rank] = letters
                self.pass_on(rank)
                self._block(rank, letters, awaited)
            self.check(f"rank {rank} waited for {awaited}: ")
            return [self.mail.pop(letter) for letter in letters]

    def has(self, letters: Sequence[Letter]) -> bool:
        """Whether collecting these would not block."""
        with self.changed:
            return self._arrived(letters)

    def enter(self, rank: int) -> None:
        with self.changed:
            self.queue([rank])
            self._block(rank, [], "its turn")

    def queue(self, ranks: Iterable[int]) -> None:
        with self.changed:
            for rank in ranks:
                self.inside.add(rank)
                self.awaited.setdefault(rank, [])
                if self.baton is None:
                    self._hand_to(rank)

    def leave(self, rank: int) -> None:
        with self.changed:
            self.inside.discard(rank)
            self.awaited.pop(rank, None)
            self.pass_on(rank)

    def fail(self, rank: int | None, reason: str) -> None:
        """Records the first failure and wakes everyone."""
        with self.changed:
            self.failure = self.failure or (rank, reason)
            self.changed.notify_all()

    def close(self, rank: int) -> None:
        with self.changed:
            self.closed.add(rank)
            self.changed.notify_all()

    def check(self, prefix: str = "") -> None:
        if self.failure is not None:
            raise RankLostError(prefix + self.failure[1], self.failure[0])

    def _check_turn(self, rank: int) -> None:
        if self.turns and rank not in self.inside:
            raise CommError(f"rank {rank} talks outside its turn; use `with comm.turn():`")

    def pass_on(self, rank: int) -> None:
        """Hands the baton to the next rank in rank order that can go on, if `rank` holds it."""
        if not self.turns or self.baton != rank:
            return
        after = [(rank + i) % self.num_ranks for i in range(1, self.num_ranks + 1)]
        able = (r for r in after if r in self.awaited and self._arrived(self.awaited[r]))
        self._hand_to(next(able, None))

    def _hand_to(self, rank: int | None) -> None:
        self.baton = rank
        self.moved = time.monotonic()
        self.changed.notify_all()

    def _arrived(self, letters: Sequence[Letter]) -> bool:
        return all(letter in self.mail for letter in letters)

    def _block(self, rank: int, letters: list[Letter], awaited: str) -> None:
        began = time.monotonic()
        while not (self._arrived(letters) and (not self.turns or self.baton == rank)):
            now = time.monotonic()
            self.check(f"rank {rank} waited {now - began:.1f} s for {awaited}: ")
            self._check_alive(rank, letters, awaited)
            # With turns, waiting for others to compute is normal; only a still baton is not.
            since = self.moved if self.turns else began
            if now - since >= self.timeout:
                self._give_up(rank, letters, awaited, now - since)
            self.changed.wait(since + self.timeout - now)
        self.awaited.pop(rank, None)

    def _check_alive(self, rank: int, letters: list[Letter], awaited: str) -> None:
        missing = [letter for letter in letters if letter not in self.mail]
        gone = sorted({letter[0] for letter in missing} & self.closed)
        if gone:
            self.fail(gone[0], f"rank {rank} waited for {awaited}, but rank {gone[0]} has left")
        stuck = self.turns and self.baton is None and self.inside == set(self.awaited)
        if stuck and len(self.inside | self.closed) == self.num_ranks:
            self.fail(None, f"every rank waits for another; rank {rank} for {awaited}")
        self.check()

    def _give_up(self, rank: int, letters: list[Letter], awaited: str, seconds: float) -> None:
        if self.turns and self.baton is not None:
            lost: int | None = self.baton
            reason = f"rank {lost} computed for {seconds:.1f} s without passing its turn on"
        else:
            lost = next((letter[0] for letter in letters if letter not in self.mail), None)
            reason = f"rank {rank} waited {seconds:.1f} s for {awaited}, which did not come"
        self.fail(lost, reason)
        self.check()
