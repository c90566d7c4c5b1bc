"""Where processes meet: a small store kept by rank 0, and the record of why their world ended."""

from __future__ import annotations

import json
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from frieze.cluster.messages import RankLostError

REASON = "frieze/reason"
MEET_SECONDS = 60.0  # a rank that is not there by then is lost, however patient the others are


class Rendezvous:
    """The store at `address`:`port`; rank 0 listens on that address only."""

    def __init__(self, rank: int, size: int, address: str, port: int, timeout: float) -> None:
        self._place = (address, port)
        self._store: Any = None
        began, timeout = time.monotonic(), min(timeout, MEET_SECONDS)
        awaited, lost = f"the store at {address}:{port}", 0
        try:
            self._store = _open_store(rank, address, port, timeout)
            self._store.set(f"frieze/joined/{rank}", b"1")
            for lost in range(size):
                awaited = f"rank {lost} to join at {address}:{port}"
                self._await_key(f"frieze/joined/{lost}", began + timeout)
        except (RuntimeError, OSError) as error:
            seconds = time.monotonic() - began
            raise RankLostError(
                f"rank {rank} of {size} waited {seconds:.1f} s for {awaited}: {one_line(error)}",
                lost,
            ) from None
        self._store.set_timeout(timedelta(seconds=min(timeout, 5.0)))

    def _await_key(self, key: str, deadline: float) -> None:
        while not self._store.check([key]):
            if time.monotonic() > deadline:
                raise TimeoutError("timed out")
            time.sleep(0.01)

    def prefixed(self, prefix: str) -> Any:
        """The store as a process group wants it."""
        return dist.PrefixStore(prefix, self._store)

    def publish(self, lost: int | None, text: str) -> tuple[int | None, str]:
        """Records (rank, reason) unless a rank did before; returns what is on record."""
        record = self._ask("compare_set", REASON, "", json.dumps([lost, text]))
        if record is None:
            return lost, text
        rank, first = json.loads(record)
        return rank, first

    def reason(self) -> str | None:
        """Why this world ended, if a rank said so."""
        if not self._ask("check", [REASON]):
            return None
        record = self._ask("get", REASON)
        return None if record is None else str(json.loads(record)[1])

    def _ask(self, question: str, *args: Any) -> Any:
        """The store's answer, or None if the rank that kept it is gone."""
        if self._store is None:
            return None
        try:
            # Asking a dead store would fill stderr with a trace before it raised.
            socket.create_connection(self._place, timeout=1.0).close()
            return getattr(self._store, question)(*args)
        except (RuntimeError, OSError):
            return None

    def leave(self) -> None:
        """Drops the store; if this rank keeps it, it is gone for all."""
        self._store = None

    def facing(self) -> str:
        """The address of this machine that faces the store's; no packet is sent."""
        family = socket.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(self._place)
            return str(probe.getsockname()[0])


def _open_store(rank: int, address: str, port: int, timeout: float) -> Any:
    limit = timedelta(seconds=timeout)
    if rank > 0:
        return dist.TCPStore(address, port, None, False, timeout=limit, wait_for_workers=False)
    return dist.TCPStore(
        address,
        port,
        None,
        True,
        timeout=limit,
        wait_for_workers=False,
        master_listen_fd=socket.create_server((address, port), backlog=1024).detach(),
    )


def one_line(error: Exception) -> str:
    """What a transport's error means, without its file names and traces."""
    text = str(error)
    if "losed by" in text or "reset by peer" in text or "Broken pipe" in text:
        return "the connection closed"
    if "imed out" in text or "imeout" in text:
        return "it did not come in time"
    return text.splitlines()[0] if text else type(error).__name__
