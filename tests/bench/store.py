"""How fast a picture gets to disk: the store and its exports against a plain file.

Prints a Markdown table. Every row is checked first: wrong pixels, no number. Times include what
it takes to be on disk; the picture is gradients with grain, as a decoder makes them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from frieze.renderer.codecs.output import Output
from frieze.renderer.exports import ome_zarr, png, tiff
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store

SIDE = 2048
BLOCK = 512
REPEATS = 2
FAST = png.Options(level=1)


def picture() -> np.ndarray:
    """Pixels [H, W, 3]."""
    rng = np.random.default_rng(0)
    y_HW, x_HW = np.mgrid[:SIDE, :SIDE] / SIDE
    planes_HWC = np.stack([y_HW, x_HW, np.sin(9 * y_HW * x_HW) / 2 + 0.5], axis=-1) * 250
    return np.clip(planes_HWC + rng.normal(0, 1.5, planes_HWC.shape), 0, 255).astype(np.uint8)


def plain_file(path: Path, pixels_HWC: np.ndarray) -> np.ndarray:
    with path.open("wb") as file:
        for row in range(0, SIDE, BLOCK):
            file.write(pixels_HWC[row : row + BLOCK].tobytes())
        os.fsync(file.fileno())
    return np.fromfile(path, np.uint8).reshape(pixels_HWC.shape)


def live_tiff(path: Path, pixels_HWC: np.ndarray) -> None:
    tiff.create_tiled(path, SIDE, SIDE, tile=BLOCK)
    for row in range(0, SIDE, BLOCK):
        tiff.write_tiles(path, row, pixels_HWC[row : row + BLOCK])


def store(path: Path, pixels_HWC: np.ndarray) -> Store:
    made = Store.create(path, StoreLayout(SIDE, SIDE, (BLOCK, BLOCK)), fingerprint="", run={})
    for row in range(0, SIDE, BLOCK):
        ids = made.write_rows(row, pixels_HWC[row : row + BLOCK])
        made.journal.append({"event": "block", "ids": ids})
    made.finish()
    return made


def main() -> None:
    pixels_HWC = picture()
    print(f"{SIDE} x {SIDE}, 8 bit, {pixels_HWC.nbytes / 1e6:.0f} MB, blocks of {BLOCK}\n")
    print("| target | MB/s | times a plain file | size ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = measure("plain file", lambda out: plain_file(out, pixels_HWC), folder, "bin", 1)
        source = store(folder / "source.zarr", pixels_HWC)
        check("store", np.concatenate([rows_HWC for _, rows_HWC in source.in_order()]), pixels_HWC)
        live_tiff(folder / "live.tif", pixels_HWC)
        check("live TIFF", tifffile.imread(folder / "live.tif"), pixels_HWC)
        check(
            "TIFF",
            tifffile.imread(tiff.export(Output.of(source.path, folder / "x.tif"))),
            pixels_HWC,
        )
        for label, act, suffix in (
            ("store, with pyramid", lambda out: store(out, pixels_HWC), "zarr"),
            ("TIFF, live", lambda out: live_tiff(out, pixels_HWC), "tif"),
            (
                "TIFF export, with pyramid",
                lambda out: tiff.export(Output.of(source.path, out)),
                "tif",
            ),
            (
                "PNG export, level 1",
                lambda out: png.export(Output.of(source.path, out), FAST),
                "png",
            ),
            ("OME-Zarr export", lambda out: ome_zarr.export(Output.of(source.path, out)), "zarr"),
        ):
            measure(label, act, folder, suffix, plain)


def measure(
    label: str, act: Callable[[Path], object], folder: Path, suffix: str, plain: float
) -> float:
    """Best of a few; prints one row and returns the rate in MB/s."""
    megabytes = SIDE * SIDE * 3 / 1e6
    rates = []
    for repeat in range(REPEATS):
        out = folder / f"{label.split(',')[0]}{repeat}.{suffix}"
        began = time.perf_counter()
        act(out)
        rates.append(megabytes / (time.perf_counter() - began))
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    ratio = megabytes * 1e6 / sum(file.stat().st_size for file in files)
    shown = max(rates) if plain == 1 else plain
    print(f"| {label} | {max(rates):.0f} | {max(rates) / shown:.2f} | {ratio:.2f} |", flush=True)
    return max(rates)


def check(label: str, found_HWC: np.ndarray, pixels_HWC: np.ndarray) -> None:
    """No number for what is wrong."""
    if not np.array_equal(found_HWC, pixels_HWC):
        sys.exit(f"{label}: the pixels differ; no timing")


if __name__ == "__main__":
    main()
