"""Extrapolation methods side by side on the demo model, judged against scenes with known answers.

Draws every method at sizes beyond the trained one, with the same prompts, seeds, steps and time
shift; writes a table, a CSV and contact sheets to tests/bench/results. Pictures stay in a work
folder, so that a stopped run goes on where it was; cheap cells come first, and within a cell all
rows draw a seed before any draws the next.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import features, quality_report, quality_rows, quality_store
from bench.quality_processes import run
from bench.quality_rows import Cell, Settings
from bench.quality_store import Shelf
from frieze.renderer.errors import FriezeError

RESULTS = Path(__file__).parent / "results"
SIZES = "512x512,768x384,1024x1024"
# A picture of 4x per side costs as much as ten of 2x.
LARGE = 2 * 512 * 512
ENTROPIES = 4

Task = tuple[Shelf, int, bool]


def cells(text: str) -> list[Cell]:
    """Sizes as WIDTHxHEIGHT with commas, the cheapest first."""
    sizes = [tuple(map(int, size.split("x"))) for size in text.split(",")]
    return sorted(itertools.starmap(Cell, sizes), key=lambda cell: cell.width * cell.height)


def tasks(shelves: list[Shelf], number: int) -> Iterator[Task]:
    """(shelf, seed, whether entropy is meant) of what a cell lacks, in the order to do it."""
    for seed in range(number):
        for shelf in shelves:
            if not shelf.has(seed):
                yield shelf, seed, False
            if seed < ENTROPIES and shelf.lacks_entropy(seed):
                yield shelf, seed, True


def work(task: Task) -> str:
    """Do one task; what was done, in words. A render that fails is told, and the others go on."""
    shelf, seed, is_entropy = task
    began = time.monotonic()
    what = f"{shelf.cell} {shelf.row.name}: {'entropy of' if is_entropy else 'picture'} {seed}"
    try:
        if is_entropy:
            shelf.entropy(seed)
        else:
            shelf.draw(seed)
    except FriezeError as error:
        return f"{what} FAILED: {error}"
    return f"{what}, {time.monotonic() - began:.1f} s"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=64, help="of each row")
    parser.add_argument("--pictures-large", type=int, default=16, help="the same at 4x per side")
    parser.add_argument("--sizes", default=SIZES, help="WIDTHxHEIGHT with commas")
    parser.add_argument("--methods", default="", help="with commas; default: all there are")
    parser.add_argument("--rows", default="", help="names with semicolons; default: all there are")
    parser.add_argument("--name", default="quality", help="of what is written, without its ending")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--shift", type=float, default=Settings.shift, help="of timesteps")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then only report")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if min(asked.pictures, asked.pictures_large) < 2:
        parser.error("a row needs two pictures or more")
    return asked


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    features.load()  # before there are processes that would each train it
    settings = Settings(asked.steps, asked.shift)
    wanted = tuple(name for name in asked.methods.split(",") if name)
    names = {name.strip() for name in asked.rows.split(";")} - {""}
    until = time.monotonic() + 60 * asked.minutes
    found = []
    for cell in cells(asked.sizes):
        number = asked.pictures_large if cell.width * cell.height > LARGE else asked.pictures
        rows = quality_rows.rows(cell, settings, wanted)
        if unknown := names - {row.name for row in rows}:
            raise SystemExit(f"no rows of {cell}: {', '.join(sorted(unknown))}")
        rows = [row for row in rows if not names or row.name in names]
        shelves = [Shelf.of(asked.work, row, cell, settings) for row in rows]
        real = quality_store.real_shelf(asked.work, cell, settings)
        scenes = ((real, seed, False) for seed in range(quality_rows.REALS * number))
        run(work, itertools.chain(tasks(shelves, number), scenes), asked.jobs, until)
        found.append(quality_report.judged(asked.work, cell, shelves, number))
        command = shlex.join(["python", "tests/bench/quality.py", *sys.argv[1:]])
        quality_report.write(asked.out / asked.name, found, command, settings)
    print(f"{asked.out / asked.name}.md")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
