"""Where processes meet: a store in rank 0's process, and the record of why their world ended.

Nobody listens for it: ranks ask by whatever way they are given, which lets in whom it lets in. What
they find there, a key among it, makes them known to each other on the connections that follow.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from .messages import RankLostError

REASON, KEY = "frieze/reason", "frieze/key"
MEET_SECONDS = 60.0  # a rank that is not there by then is lost, however patient the others are
POLL_SECONDS = 0.01
# What may be asked of a store from afar: nothing that waits, and nothing that lists.
QUESTIONS = frozenset({"set", "get", "add", "check", "compare_set", "delete_key"})

ANSWER_SECONDS = 5.0  # how long rank 0's process may take to say what its store holds

# ask(question, *args) begins to ask; what it returns gives the answer, within so many seconds, or
# raises TimeoutError, and ConnectionError where there is nobody to answer.
Ask = Callable[..., Callable[[float], Any]]


def store() -> Any:
    """An empty store in this process, for `answer`."""
    return dist.HashStore()


def answer(kept: Any, question: str, args: Sequence[Any]) -> Any:
    """A store's answer to what another rank asks."""
    if question not in QUESTIONS:
        raise ValueError(f"{question!r} is not asked of a store; {sorted(QUESTIONS)} are")
    return getattr(kept, question)(*args)


class RemoteStore(dist.Store):
    """The store of rank 0 as another process sees it, with what torch's process groups ask."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._begin = ask
        self._timeout = timedelta(seconds=MEET_SECONDS)
        self._looks: dict[str, Callable[[float], Any]] = {}

    def set_timeout(self, timeout: timedelta) -> None:
        """How long `wait` waits."""
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        """Puts a value."""
        self._ask("set", key, value)

    def get(self, key: str) -> bytes:
        """A value, once it is there."""
        self.wait([key])
        value: bytes = self._ask("get", key)
        return value

    def add(self, key: str, number: int) -> int:
        """Adds to a number and returns the sum."""
        return int(self._ask("add", key, number))

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all keys have values."""
        return bool(self._ask("check", list(keys)))

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Puts a value in the place of the expected one; returns the one that is there then."""
        value: bytes = self._ask("compare_set", key, expected, desired)
        return value

    def delete_key(self, key: str) -> bool:
        """Takes a value away; says whether there was one."""
        return bool(self._ask("delete_key", key))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Returns when all keys have values; RuntimeError where that takes too long."""
        deadline = time.monotonic() + (timeout or self._timeout).total_seconds()
        while not self.check(keys):
            if time.monotonic() > deadline:
                raise RuntimeError(f"timed out: {', '.join(keys)} did not come")
            time.sleep(POLL_SECONDS)

    def look(self, key: str) -> bool:
        """Whether a key is known to have a value; returns at once, and knows it a call later."""
        look = self._looks.pop(key, None) or self._begin("check", [key])
        try:
            return bool(look(0.0))
        except TimeoutError:
            self._looks[key] = look
            return False

    def _ask(self, question: str, *args: Any) -> Any:
        return self._begin(question, *args)(ANSWER_SECONDS)

    def clone(self) -> dist.Store:
        """Itself: it is safe to share between threads."""
        return self


class Rendezvous:
    """All ranks of a world have joined its store; RankLostError if one has not in time."""

    def __init__(self, rank: int, size: int, store: Any, timeout: float) -> None:
        # For as long as a process group may ask it: torch does not keep an object of Python alive.
        self._store: Any = store
        self._is_left = False
        began, timeout = time.monotonic(), min(timeout, MEET_SECONDS)
        awaited, lost = "the store of rank 0", 0
        try:
            store.set_timeout(timedelta(seconds=timeout))
            if rank == 0:
                store.set(KEY, secrets.token_hex(32))
            store.set(f"frieze/joined/{rank}", b"1")
            for lost in range(size):
                awaited = f"rank {lost} to join"
                self._await_key(f"frieze/joined/{lost}", began + timeout)
            self._key = bytes(store.get(KEY))
        except (RuntimeError, OSError) as error:
            seconds = time.monotonic() - began
            raise RankLostError(
                f"rank {rank} of {size} waited {seconds:.1f} s for {awaited}: {one_line(error)}",
                lost,
            ) from None

    def _await_key(self, key: str, deadline: float) -> None:
        while not self._store.check([key]):
            if time.monotonic() > deadline:
                raise TimeoutError("timed out")
            time.sleep(POLL_SECONDS)

    def prefixed(self, prefix: str) -> Any:
        """The store as a process group wants it."""
        return dist.PrefixStore(prefix, self._store)

    def proof(self, source: int, target: int) -> bytes:
        """What `source` says to `target`, which only those can who have met here."""
        said = f"frieze rank {source} to rank {target}".encode()
        return hmac.digest(self._key, said, hashlib.sha256)

    def publish(self, lost: int | None, text: str) -> tuple[int | None, str]:
        """Records (rank, reason) unless a rank did before; returns what is on record."""
        record = self._ask("compare_set", REASON, "", json.dumps([lost, text]))
        if record is None:
            return lost, text
        rank, first = json.loads(record)
        return rank, first

    def reason(self) -> str | None:
        """Why this world ended, if a rank said so."""
        is_remote = isinstance(self._store, RemoteStore)  # it takes its time, which is the work's
        if not (self._ask("look", REASON) if is_remote else self._ask("check", [REASON])):
            return None
        record = self._ask("get", REASON)
        return None if record is None else str(json.loads(record)[1])

    def _ask(self, question: str, *args: Any) -> Any:
        """The store's answer, or None if the rank that keeps it is gone."""
        if self._is_left:
            return None
        try:
            return getattr(self._store, question)(*args)
        except (RuntimeError, OSError):
            return None

    def leave(self) -> None:
        """Asks nothing any more."""
        self._is_left = True


def one_line(error: Exception) -> str:
    """What a transport's error means, without its file names and traces."""
    text = str(error)
    if "losed by" in text or "reset by peer" in text or "Broken pipe" in text:
        return "the connection closed"
    if "imed out" in text or "imeout" in text:
        return "it did not come in time"
    return text.splitlines()[0] if text else type(error).__name__
