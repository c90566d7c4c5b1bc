"""What saving takes from the steps beside which it is done: latents of an 8K canvas.

Prints a Markdown table. The state is read back first: other bits, no number. `held up` is what a
step waits for the copy and for the writer; `processor` is the time of all of the process's threads
for a state that is written while nothing else is done, which other work on the machine hardly
changes; `slower` is what a step that saves takes longer than the two beside it that do not, and
`by chance` how much those two differ, so that less than that is not to be seen in a clock.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from frieze.renderer.driver.state_slots import NUM_SLOTS
from frieze.renderer.store.layout import LatentArray, StoreLayout
from frieze.renderer.store.store import Store
from frieze.renderer.worker.writers.states import StateWriter

CHANNELS, SIDE = 16, 1024  # of the latents of 8192 x 8192 pixels
STEP_SECONDS = 5.0
PAIRS = 6
BAR = 0.02


def main() -> None:
    """Steps that save and steps that do not, in turns."""
    x_CTHW = torch.randn(CHANNELS, 1, SIDE, SIDE)
    layout = StoreLayout(
        SIDE * 8,
        SIDE * 8,
        (512, 512),
        latents=(LatentArray("0", (NUM_SLOTS, CHANNELS, 1, SIDE, SIDE), chunk_rows=64),),
    )
    with tempfile.TemporaryDirectory() as name:
        store = Store.create(Path(name) / "a.zarr", layout, fingerprint="", run={})
        saving, size = StateWriter(), calibrated()
        check(store, saving, x_CTHW)
        spent = [alone(store, saving, x_CTHW, slot % 2) for slot in range(PAIRS)]
        plain, beside, held = [work(size)], [], []
        for pair in range(PAIRS):
            began = time.perf_counter()
            saving.start([x_CTHW], partial(write, store, pair % 2))
            copied = time.perf_counter() - began
            beside.append(work(size))
            began = time.perf_counter()
            saving.settle()
            held.append(copied + time.perf_counter() - began)
            plain.append(work(size))
    usual = statistics.median(plain)
    neighbours = list(pairwise(plain))
    slower = [each - (a + b) / 2 for each, (a, b) in zip(beside, neighbours, strict=True)]
    chance = [abs(a - b) for a, b in neighbours]
    threads, load = torch.get_num_threads(), ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{platform.machine()}, {threads} threads, load {load}, {x_CTHW.nbytes / 1e6:.0f} MB")
    print(f"\n| of steps of {usual:.1f} s | median | share | bar |\n|---|---|---|---|")
    for name, seconds in (("held up", held), ("slower", slower), ("by chance", chance)):
        print(row(name, statistics.median(seconds), usual))
    print(row("processor", statistics.median(spent), usual * threads))
    wait = statistics.median(held) + statistics.median(spent) / threads
    print(f"\nHeld up and processor are {BAR:.0%} or less of steps of {wait / BAR:.1f} s or more.")


def row(name: str, seconds: float, usual: float) -> str:
    return f"| {name} | {seconds * 1e3:.0f} ms | {seconds / usual:.2%} | {BAR:.0%} |"


def alone(store: Store, saving: StateWriter, x_CTHW: torch.Tensor, slot: int) -> float:
    """Processor seconds of all threads for a state that is saved while nothing else is done."""
    began = time.process_time()
    saving.start([x_CTHW], partial(write, store, slot))
    saving.settle()
    return time.process_time() - began


def write(store: Store, slot: int, rows_CTHW: np.ndarray) -> None:
    store.save_latents(0, slot, slice(0, SIDE), rows_CTHW)


def check(store: Store, saving: StateWriter, x_CTHW: torch.Tensor) -> None:
    """No number for what is wrong."""
    saving.start([x_CTHW], partial(write, store, 2))
    saving.settle()
    if not np.array_equal(store.load_latents(0, 2, slice(0, SIDE)), x_CTHW.numpy()):
        sys.exit("the saved state differs; no timing")


def calibrated() -> int:
    """How many products of matrices take about as long as a step."""
    work(2)
    return max(1, round(STEP_SECONDS * 8 / work(8)))


def work(size: int) -> float:
    """Seconds of so many products."""
    began, a = time.perf_counter(), torch.randn(1024, 1024)
    for _ in range(size):
        a = torch.tanh(a @ a)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
