"""What a batch saves: 24 small renders on two warm workers against 24 calls of `frieze render`.

Prints a Markdown table. A ratio is printed only when both draw the same bytes. Another number of
renders may be given as an argument.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from support.drawing import PROMPT, pixels

NUM_RENDERS = int(sys.argv[1]) if len(sys.argv) > 1 else 24
WORKERS = 2
SIDE = 256
STEPS = 8
FRIEZE = (sys.executable, "-m", "frieze.renderer")


def frieze(*words: str) -> float:
    """Wall seconds of one call, its interpreter's start included."""
    began = time.perf_counter()
    subprocess.run([*FRIEZE, *words, "--quiet"], check=True)
    return time.perf_counter() - began


def separately(folder: Path) -> float:
    """One call after another, each with all the machine to itself."""
    size = ("--size", f"{SIDE}x{SIDE}", "--num-inference-steps", str(STEPS))
    return sum(
        frieze("render", PROMPT, *size, "--seed", str(seed), "--out", str(folder / f"{seed}.zarr"))
        for seed in range(NUM_RENDERS)
    )


def together(folder: Path, workers: int) -> float:
    """One call for all."""
    jobs = folder.with_suffix(".json")
    same = {"prompt": PROMPT, "size": f"{SIDE}x{SIDE}", "num_inference_steps": STEPS}
    items = [{**same, "name": str(seed), "seed": seed} for seed in range(NUM_RENDERS)]
    jobs.write_text(json.dumps(items))
    return frieze("batch", str(jobs), "--out", str(folder), "--workers", str(workers))


def main() -> None:
    # One thread for each process, so that one worker and two do the same sums.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one").mkdir()
        alone = separately(folder / "one")
        warm = together(folder / "warm", 1)
        two = together(folder / "two", WORKERS)
        for seed in range(NUM_RENDERS):
            expected = pixels(folder / "one" / f"{seed}.zarr")
            for way in ("warm", "two"):
                same = np.array_equal(pixels(folder / way / f"{seed}.zarr"), expected)
                assert same, f"{way} {seed}: pictures differ, so no timing"
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, demo model, ")
    print(f"{NUM_RENDERS} renders of {SIDE}x{SIDE}, {STEPS} steps, float32\n")
    print("| what | seconds | against separate calls |\n|---|---|---|")
    print(f"| {NUM_RENDERS} calls of frieze render | {alone:.1f} | 1 |")
    print(f"| frieze batch, 1 worker | {warm:.1f} | {warm / alone:.3f} |")
    print(f"| frieze batch, {WORKERS} workers | {two:.1f} | {two / alone:.3f} |")


if __name__ == "__main__":
    main()
