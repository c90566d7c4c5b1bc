"""Workers that the fleet tests let act, fail, hang and die."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from frieze.cluster.comm import Comm

released = threading.Event()  # ends the stalls of ranks in this process


def once(begun: Path, act: Callable[[], object]) -> str:
    """Acts on another thread once a file is there, whose path is returned."""

    def wait() -> None:
        while not begun.exists():
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()
    return str(begun)


class OddError(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Worker:
    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.local = threading.local()

    def join(self, comm: Comm) -> None:
        self.comm = comm

    def total(self, x: int) -> int:
        """The sum of base + rank + x over the ranks."""
        return int(self.comm.all_reduce(torch.tensor([self.base + self.comm.rank + x])).item())

    def rank(self) -> int:
        return self.comm.rank

    def count(self, num_items: int) -> Iterator[int]:
        """Items that need the other ranks."""
        for i in range(num_items):
            yield self.total(i)

    def remember(self, x: int) -> None:
        self.local.x = x

    def recall(self) -> int:
        return int(self.local.x)

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def fail(self, rank: int, message: str) -> None:
        if self.comm.rank == rank:
            raise KeyError(message)
        self.comm.barrier()

    def fail_oddly(self) -> None:
        raise OddError("one", "two")

    def exit(self) -> None:
        raise SystemExit("gone")

    def stall(self, rank: int, seconds: float, begun: str = "") -> None:
        """One rank does nothing while the others wait for it; a file says that it has begun.

        It ends when that file is gone again.
        """
        deadline = time.monotonic() + seconds
        if self.comm.rank == rank:
            if begun:
                Path(begun).touch()
            while not released.wait(0.05) and time.monotonic() < deadline:
                if begun and not Path(begun).exists():
                    break
        self.comm.barrier()

    def until_closed(self, folder: str) -> Iterator[int]:
        """Items without end; a file says that the generator was closed."""
        try:
            for i in range(10**6):
                time.sleep(0.01)
                yield i
        finally:
            (Path(folder) / str(self.comm.rank)).touch()

    def idle(self, seconds: float) -> None:
        """Says nothing, and needs nobody."""
        time.sleep(seconds)


class Brittle(Worker):
    """Dies as it starts while there is a file `flaw` in a folder; `starts` counts that."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        if (Path(folder) / "flaw").exists():
            with (Path(folder) / "starts").open("a") as file:
                file.write(".")
            os._exit(1)


class Unwilling:
    def __init__(self) -> None:
        raise ValueError("no weights here")

    def join(self, comm: Comm) -> None:
        raise AssertionError
