"""Pictures that are redrawn larger (`frieze upscale --with render`), beside others' ways.

Every row makes the same pictures of the demo model four times larger, and eight times with `--side
2048`; the demo draws them at 256 pixels, so that what is asked for is known. Pictures stay in a
work folder, with those of `quality_decoder.py` where it is the same one, so that a stopped run goes
on where it was; all rows draw a seed before any draws the next. Writes quality_redraw-SIDE.md and
.csv, whose columns that benchmark explains; `--sheets` a contact sheet.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import features, quality_decoder_measures
from bench.quality_decoder import Judged, sheet, table, work
from bench.quality_decoder_latents import Source
from bench.quality_decoder_rows import Row, Shelf, redraw, rows
from bench.quality_processes import run
from bench.quality_report import machine
from bench.quality_rows import Settings
from frieze.renderer.checkpoints.decoder import OWN
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.extrapolation.guides import HELD_BY
from frieze.renderer.spec.render_spec import NO_DECODER

RESULTS = Path(__file__).parent / "results"
# Of quality_decoder.py's rows what an upscale is held to.
BESIDE = ("scenes", "bicubic", "realesrgan", "tiles", "infgen")
DRAWN: Source = "drawn"


def chosen(asked: argparse.Namespace) -> list[Row]:
    """What is compared: those beside, then a redraw of each guide and creativity."""
    kinds = BESIDE if not asked.rows else tuple(filter(None, asked.rows.split(",")))
    found = [row for row in rows(SHIPPED["demo"] / "infgen", (1,)) if row.kind in kinds]
    if asked.side != 1024:
        found = [row for row in found if row.kind != "realesrgan"]
    if asked.rows and "redraw" not in kinds:
        return found
    guides, freedoms = asked.guides.split(","), asked.creativity.split(",")
    decoders = asked.decoders.split(",")
    return found + [
        redraw(g, float(c), d) for g, c, d in itertools.product(guides, freedoms, decoders)
    ]


def tasks(shelves: list[Shelf], number: int) -> Iterator[tuple[Shelf, Source, int]]:
    """(shelf, source, seed) of what is missing, in the order to do it."""
    for seed in range(number):
        for shelf in shelves:
            if not shelf.has(DRAWN, seed):
                yield shelf, DRAWN, seed


def judged(shelves: list[Shelf], number: int) -> Judged:
    """Rows of two pictures or more, how many there are, and their figures."""
    found: Judged = []
    for shelf in shelves:
        seeds = [seed for seed in range(number) if shelf.has(DRAWN, seed)]
        if len(seeds) > 1:
            figures = quality_decoder_measures.of_row(shelf, DRAWN, seeds)
            found.append((shelf, DRAWN, len(seeds), figures))
    return found


def write(folder: Path, found: Judged, side: int) -> Path:
    """The table, and its figures as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    command = "python tests/bench/quality_redraw.py " + " ".join(sys.argv[1:])
    lines = [f"# 256 pixels redrawn as {side}\n", f"`{command}`\n", f"{machine()}."]
    lines += table(DRAWN, found)
    file = folder / f"quality_redraw-{side}.md"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with file.with_suffix(".csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("row", "pictures", "column", "value", "low", "high"))
        for shelf, _, number, figures in found:
            for column, e in figures.items():
                values = (f"{x:.6g}" for x in (e.value, e.low, e.high))
                writer.writerow((shelf.row.name, number, column, *values))
    return file


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--creativity", default="0.2,0.5,0.8", help="with commas")
    parser.add_argument("--guides", default=HELD_BY, help="with commas")
    parser.add_argument("--decoders", default=f"{OWN},{NO_DECODER}", help="with commas")
    parser.add_argument("--rows", default="", help="kinds with commas; default: all there are")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then only report")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--sheets", action="store_true", help="a contact sheet too")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-decoder"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    features.load()  # before there are processes that would each train it
    shelves = [Shelf(asked.work, row, asked.side, Settings()) for row in chosen(asked)]
    until = time.monotonic() + 60 * asked.minutes
    run(work, tasks(shelves, asked.pictures), asked.jobs, until)
    if not (found := judged(shelves, asked.pictures)):
        print("no row has two pictures; nothing is reported")
        return
    file = write(asked.out, found, asked.side)
    if asked.sheets:
        sheet(shelves, DRAWN).save(file.with_suffix(".jpg"), quality=80)
    print(file)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
