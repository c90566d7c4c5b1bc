"""What saving takes from the steps beside which it is done: latents of an 8K canvas.

Prints a Markdown table. The state is read back first: other bits, no number. `held up` is what a
step waits for the copy and for the writer; `slower` is what else it loses, while the writer has
a core, to steps that save nothing in the same run.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from frieze.renderer.pixels import LatentArray, StoreLayout
from frieze.renderer.saving import NUM_SLOTS, Saving
from frieze.renderer.store import Store

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
        saving, size = Saving(), calibrated()
        check(store, saving, x_CTHW)
        plain, beside, held = [], [], []
        for pair in range(PAIRS):
            plain.append(work(size))
            began = time.perf_counter()
            saving.start([x_CTHW], partial(write, store, pair % 2))
            copied = time.perf_counter() - began
            beside.append(work(size))
            began = time.perf_counter()
            saving.settle()
            held.append(copied + time.perf_counter() - began)
    usual, wait = statistics.median(plain), statistics.median(held)
    slower = statistics.median(b - a for a, b in zip(plain, beside, strict=True))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {x_CTHW.nbytes / 1e6:.0f} MB")
    print("\n| steps of | held up | share | slower | share | bar |\n|---|---|---|---|---|---|")
    print(
        f"| {usual:.1f} s | {wait * 1e3:.0f} ms | {wait / usual:.2%} | {slower * 1e3:.0f} ms "
        f"| {slower / usual:.2%} | {BAR:.0%} |"
    )
    print(f"\nHeld up for {BAR:.0%} or less in steps of {wait / BAR:.1f} s or more.")


def write(store: Store, slot: int, rows_CTHW: np.ndarray) -> None:
    store.save_latents(0, slot, slice(0, SIDE), rows_CTHW)


def check(store: Store, saving: Saving, x_CTHW: torch.Tensor) -> None:
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
