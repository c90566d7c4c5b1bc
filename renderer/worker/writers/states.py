"""Saved states, written while the next step is computed, and what of a step's time that takes.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from frieze.cluster.comm import Comm

from ...events import StepReport

Digests = dict[int, str]  # of files, by the numbers of their chunks


class StateWriter:
    """Writes one copy at a time, into a slot that nobody needs, on a thread of its own.

    Its error is raised by whoever waits.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "frieze-saving")
        self._pending: Future[Digests] | None = None
        self._rows_CTHW = np.empty((0, 0, 0, 0), np.float32)

    def start(self, parts_CTHW: Sequence[Tensor], write: Callable[[np.ndarray], Digests]) -> None:
        """Copy tensors over the same rows, channel after channel, and begin to write the copy."""
        self.settle()
        _, *shape = parts_CTHW[0].shape
        channels = sum(part.shape[0] for part in parts_CTHW)
        if self._rows_CTHW.shape != (channels, *shape):
            self._rows_CTHW = np.empty((channels, *shape), np.float32)
        top = 0
        for part in parts_CTHW:
            self._rows_CTHW[top : top + part.shape[0]] = part.float().cpu().numpy()
            top += part.shape[0]
        self._pending = self._pool.submit(write, self._rows_CTHW)

    def settle(self) -> Digests:
        """Return when what was started is written, with what `write` returned, if there was any.

        Raises what went wrong.
        """
        pending, self._pending = self._pending, None
        return {} if pending is None else pending.result()

    def drop(self) -> None:
        """Wait as well, and forget how it went: the state does not count."""
        pending, self._pending = self._pending, None
        if pending is not None:
            wait([pending])


class StepMeter:
    """Seconds and bytes of one step on one rank, counted from when it is made."""

    def __init__(self, comm: Comm, device: torch.device) -> None:
        self._comm, self._device = comm, device
        self._sent, self._waited = comm.num_bytes_sent, comm.seconds_waiting
        self._saving = 0.0
        self._began = time.perf_counter()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """What is done inside counts as spent for the state that the step began with."""
        began = time.perf_counter()
        yield
        self._saving += time.perf_counter() - began

    def synchronize(self) -> None:
        """Wait for the device, else the seconds are those of asking for its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def report(
        self, fault: str, state: Digests, kept: Digests, computed: Sequence[int]
    ) -> StepReport:
        """What the step cost until now, with what it found and wrote."""
        return StepReport(
            time.perf_counter() - self._began,
            self._comm.num_bytes_sent - self._sent,
            self._comm.seconds_waiting - self._waited,
            self._saving,
            fault,
            state,
            kept,
            tuple(computed),
        )
