"""Ranks meet where only they can be; what a stranger sends to their sockets is nobody's word."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from frieze.cluster.comm import (
    MOST_BYTES,
    Comm,
    CommError,
    Like,
    RankLostError,
    RemoteStore,
    distributed,
    from_bytes,
    in_bytes,
    rendezvous,
)
from tolerances import AMPLE

CPU = torch.device("cpu")


def listening() -> dict[int, str]:
    """{port: address} of all sockets on which this process takes connections."""
    fds = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    inodes = {os.readlink(fd) for fd in fds if os.path.lexists(fd)}
    found = {}
    for table in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{table}", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        for row in rows:
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes:
                address, port = row[1].split(":")
                found[int(port, 16)] = address
    return found


def world(
    meet: Callable[[int, Any], Any], work: Callable[[Comm], Any], timeout: float = AMPLE
) -> list[Any]:
    """What two ranks of a gloo world return or raise; `meet` gives each its store."""
    kept, outcomes = rendezvous.store(), [None, None]

    def rank(number: int) -> None:
        try:
            store = meet(number, kept)
            comm = distributed(number, 2, store=store, address="127.0.0.1", timeout=timeout)
            outcomes[number] = work(comm)
            comm.close()
        except Exception as error:
            outcomes[number] = error

    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(AMPLE)
    return outcomes


def remotely(number: int, kept: Any) -> Any:
    """Rank 0 keeps the store, and rank 1 asks for what is in it."""

    def ask(question: str, *args: Any) -> Callable[[float], Any]:
        return lambda _: rendezvous.answer(kept, question, args)

    return RemoteStore(ask) if number else kept


def passed_around(comm: Comm) -> float:
    x = torch.full((1000,), float(comm.rank))
    return float(comm.ring_pass(x, Like.of(x)).only().mean())


def test_ranks_meet_without_a_port_for_it() -> None:
    before = listening()
    seen: list[dict[int, str]] = []

    def work(comm: Comm) -> float:
        comm.barrier()
        seen.append({port: at for port, at in listening().items() if port not in before})
        comm.barrier()
        return passed_around(comm)

    assert world(remotely, work) == [1.0, 0.0]
    # Gloo's own, from which pairs of ranks take their connections: one a rank, or one for both.
    assert all(1 <= len(ports) <= 2 for ports in seen), seen
    assert {at for ports in seen for at in ports.values()} == {"0100007F"}


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.0\r\n\r\n", struct.pack("<q", 0), struct.pack("<q", 1), b"\xff" * 65536],
    ids=["nothing", "http", "pair 0", "pair 1", "noise"],
)
def test_a_stranger_at_the_ports_neither_joins_nor_breaks(sent: bytes) -> None:
    before, strangers = listening(), []

    def work(comm: Comm) -> float:
        comm.barrier()
        if comm.rank == 0:
            for port in set(listening()) - set(before):
                for _ in range(3):
                    stranger = socket.create_connection(("127.0.0.1", port), timeout=5.0)
                    stranger.sendall(sent)
                    strangers.append(stranger)
        comm.barrier()
        return passed_around(comm)

    assert world(remotely, work) == [1.0, 0.0]
    assert strangers, "control: there are ports"
    for stranger in strangers:
        stranger.settimeout(0.05)
        with contextlib.suppress(TimeoutError, ConnectionError):
            assert stranger.recv(100) == b"", "it is told nothing"
        stranger.close()


def test_a_stranger_who_is_there_first_cannot_take_a_ranks_place() -> None:
    before, strangers = listening(), []

    def late(number: int, kept: Any) -> Any:
        """Rank 1 comes when strangers have told rank 0's port the numbers of all of its pairs."""
        if number:
            kept.set("frieze/joined/1", b"1")  # as if it had: rank 0 goes on to listen
            deadline = time.monotonic() + AMPLE
            while not (ports := set(listening()) - set(before)) and time.monotonic() < deadline:
                time.sleep(0.01)
            for port, pair in product(ports, range(4)):
                stranger = socket.create_connection(("127.0.0.1", port), timeout=5.0)
                stranger.sendall(struct.pack("<q", pair) + b"\0" * 4096)
                strangers.append(stranger)
        return remotely(number, kept)

    for outcome in world(late, passed_around, timeout=3.0):
        # It can be in the way of the ranks then, which say so; it is never taken for one.
        assert isinstance(outcome, RankLostError) or outcome in (0.0, 1.0), outcome
    assert strangers, "control: there were ports"
    for stranger in strangers:
        stranger.close()


def test_who_takes_a_ranks_place_is_found_out() -> None:
    def impostor(number: int, kept: Any) -> Any:
        store = remotely(number, kept)
        if number:  # it listens and connects as rank 1 does, but has not met rank 0
            there = store.get
            store.get = lambda key: b"a guess" if key == rendezvous.KEY else there(key)
        return store

    found, _ = world(impostor, passed_around)
    assert isinstance(found, RankLostError)
    assert "for rank 1: another process took its place" in str(found)


def test_a_store_is_asked_for_nothing_that_lists_or_waits() -> None:
    kept = rendezvous.store()
    kept.set("a", "1")
    assert rendezvous.answer(kept, "get", ["a"]) == b"1"
    for question in ("list_keys", "num_keys", "wait", "queue_pop", "__class__"):
        with pytest.raises(ValueError, match="is not asked of a store"):
            rendezvous.answer(kept, question, [])


def test_what_ranks_say_is_json_and_nothing_else() -> None:
    for value in (None, 7, "rows", [1, [2, "x"]], {"a": None}):
        assert from_bytes(in_bytes(value, CPU)) == value
    for bad in (b"", b"\x80\x04cposix\nsystem\n", b"[" * 100_000, b"\xff"):
        with pytest.raises(CommError, match="are no JSON"):
            from_bytes(torch.frombuffer(bytearray(bad or b" "), dtype=torch.uint8))
    with pytest.raises(CommError, match="at most"):
        in_bytes("x" * MOST_BYTES, CPU)
    like = Like((2, 3), torch.bfloat16, CPU)
    assert Like.from_json(from_bytes(in_bytes(like.as_json(), CPU))) == like
    for bad_like in (None, [], [[1], "float32"], [[-1], "float32", "cpu"], [[1], "load", "cpu"]):
        with pytest.raises(CommError, match="describes no tensor"):
            Like.from_json(bad_like)
    with pytest.raises(CommError, match="describes no tensor"):
        Like.from_json([[True], "float32", "cpu"])
