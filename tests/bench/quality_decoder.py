"""The any-size decoder beside what else makes a large picture of the same small latents.

Every row enlarges the same latents of the demo model four times: those that it drew, and those of
scenes, against which pictures are held. Pictures stay in a work folder, so that a stopped run goes
on where it was; all rows draw a seed before any draws the next. Writes a table, a CSV and a contact
sheet to tests/bench/results. `--quick` is few pictures of the quick rows; a decoder at a glance is
`quality_decoder_check.py`. What is not installed is left out: `pip install 'frieze[bench]'`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import features, quality_decoder_measures
from bench.quality_decoder_latents import SOURCES, Source
from bench.quality_decoder_rows import Row, Shelf, rows
from bench.quality_metrics import Estimate
from bench.quality_processes import run
from bench.quality_report import machine
from bench.quality_rows import REALS, Settings
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.errors import FriezeError

RESULTS = Path(__file__).parent / "results"
NOTES = Path(__file__).with_name("quality_decoder_notes.md")
TITLES = {"drawn": "Latents that the demo model drew", "encoded": "Latents of scenes"}
QUICK = 4
THUMB, LABEL, SHOWN = 192, 200, 4
LEGEND = """\
Each figure is followed by its 95 % interval (bootstrap over pictures; of shares Wilson's). *KID*:
kernel distance from {reals} real scenes for each prompt, of the picture at the trained size and of
its crops of that size, in our own features (`features.py`) and in EfficientNet-Lite2's, which
trained nothing here (perceptual losses are Lite0's). *detail*: RMS above 1/4 cycle per pixel, grey
levels. *stray firs*: pieces of the front ridge's colour off the ridge. *radius %*: deviation of the
sun's radius. *flecks ppm*: pixels whose colour is no mix of those around. *half off*: grey levels
from the row's own picture of half the size, where it has one. *drift*: the block of 128 pixels
whose tone is farthest from the small picture's, grey levels. *seam*: steepness at edges of blocks
over that at lines around them. *token grid*: the steepest phase of 8 pixels over the flattest.
*PSNR*: against the scene that was encoded. *seconds/MP*: CPU, one thread, of what follows the
latent; of `auto` and what begins with it, of all."""

Task = tuple[Shelf, Source, int]
Judged = list[tuple[Shelf, Source, int, dict[str, Estimate]]]


def tasks(shelves: Sequence[Shelf], number: int, slow: int) -> Iterator[Task]:
    """(shelf, source, seed) of what is missing, in the order to do it."""
    for seed in range(number):
        for source in SOURCES:
            for shelf in shelves:
                wanted = slow if shelf.row.slow else number
                if source in shelf.row.sources and seed < wanted and not shelf.has(source, seed):
                    yield shelf, source, seed


def work(task: Task) -> str:
    """Do one task; what was done, in words. A render that fails is told, and the others go on."""
    shelf, source, seed = task
    began, what = time.monotonic(), f"{shelf.row.name}: {source} {seed}"
    try:
        shelf.draw(source, seed)
        quality_decoder_measures.of_picture(shelf, source, seed)
    except FriezeError as error:
        return f"{what} FAILED: {error}"
    return f"{what}, {time.monotonic() - began:.1f} s"


def judged(shelves: Sequence[Shelf], number: int) -> Judged:
    """Rows of two pictures or more of a source, how many there are, and the row's figures."""
    found: Judged = []
    for source in SOURCES:
        for shelf in shelves:
            seeds = [seed for seed in range(number) if shelf.has(source, seed)]
            if len(seeds) > 1:
                figures = quality_decoder_measures.of_row(shelf, source, seeds)
                found.append((shelf, source, len(seeds), figures))
    return found


def table(source: Source, found: Judged) -> Iterator[str]:
    """The lines of a source in Markdown, without columns that no row has."""
    of_source = [line for line in found if line[1] == source]
    if not of_source:
        return
    names = [
        name
        for name in of_source[0][3]
        if any(not np.isnan(figures[name].value) for *_, figures in of_source)
    ]
    yield f"\n## {TITLES[source]}\n"
    yield "| row | n | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * (len(names) + 1)
    for shelf, _, number, figures in of_source:
        shown = " | ".join(_shown(figures[name]) for name in names)
        yield f"| {shelf.row.name} | {number} | {shown} |"


def _shown(e: Estimate) -> str:
    return "-" if np.isnan(e.value) else f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})"


def write(folder: Path, found: Judged, command: str) -> None:
    """quality_decoder.md, quality_decoder.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    about = (
        f"`{command}`\n\n{machine()}; torch {torch.__version__}; {found[0][0].side} pixels a side."
    )
    lines = ["# A decoder of any size on the demo model\n", about, "", LEGEND.format(reals=REALS)]
    for source in SOURCES:
        lines += table(source, found)
    if NOTES.exists():
        lines += ["", NOTES.read_text(encoding="utf-8").strip()]
    (folder / "quality_decoder.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "quality_decoder.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "row", "pictures", "column", "value", "low", "high"))
        for shelf, source, number, figures in found:
            for column, e in figures.items():
                values = (f"{x:.6g}" for x in (e.value, e.low, e.high))
                writer.writerow((source, shelf.row.name, number, column, *values))


def sheet(shelves: Sequence[Shelf], source: Source) -> Image.Image:
    """The same seeds side by side: each whole, and its tree line as it is."""
    rows_of = [shelf for shelf in shelves if source in shelf.row.sources and shelf.has(source, 0)]
    canvas = Image.new("RGB", (LABEL + 2 * SHOWN * THUMB, len(rows_of) * THUMB), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for line, shelf in enumerate(rows_of):
        pen.text((6, line * THUMB + 6), shelf.row.name.replace(", ", ",\n"), "black", font)
        for seed in (seed for seed in range(SHOWN) if shelf.has(source, seed)):
            picture = Image.fromarray(shelf.picture(source, seed))
            left, top = picture.width // 2, int(0.76 * picture.height) - THUMB // 2
            part = picture.crop((left, top, left + THUMB, top + THUMB))
            at = LABEL + 2 * seed * THUMB
            canvas.paste(
                picture.resize((THUMB, THUMB), Image.Resampling.LANCZOS), (at, line * THUMB)
            )
            canvas.paste(part, (at + THUMB, line * THUMB))
    return canvas


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", type=Path, default=SHIPPED["demo"] / "infgen")
    parser.add_argument(
        "--liif", type=Path, help="what quality_liif.py trained; default: no such row"
    )
    parser.add_argument("--steps", default="0,1", help="with commas; 0: the decoder's own number")
    parser.add_argument("--pictures", type=int, default=64, help="of each row and source")
    parser.add_argument("--pictures-slow", type=int, default=16, help="of rows of minutes each")
    parser.add_argument("--rows", default="", help="kinds with commas; default: all there are")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pictures of the quick rows")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then only report")
    parser.add_argument("--sheets", action="store_true", help="contact sheets too")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-decoder"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def chosen(asked: argparse.Namespace) -> list[Row]:
    """The rows that are asked for; Real-ESRGAN's are of 1024 pixels alone."""
    steps = dict.fromkeys(int(number) or None for number in asked.steps.split(","))
    kinds = {kind for kind in asked.rows.split(",") if kind}
    known = rows(asked.decoder, tuple(steps), asked.liif)
    found = [row for row in known if not kinds or row.kind in kinds]
    if asked.side != 1024:
        found = [row for row in found if row.kind != "realesrgan"]
    return [row for row in found if not (asked.quick and row.slow)]


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    features.load()  # before there are processes that would each train it
    number = QUICK if asked.quick else asked.pictures
    shelves = [Shelf(asked.work, row, asked.side, Settings()) for row in chosen(asked)]
    until = time.monotonic() + 60 * asked.minutes
    run(work, tasks(shelves, number, asked.pictures_slow), asked.jobs, until)
    if not (found := judged(shelves, number)):
        print("no row has two pictures of a source; nothing is reported")
        return
    write(asked.out, found, "python tests/bench/quality_decoder.py " + " ".join(sys.argv[1:]))
    if asked.sheets:
        for source in SOURCES:
            sheet(shelves, source).save(asked.out / f"quality_decoder-{source}.jpg", quality=80)
    print(f"{asked.out / 'quality_decoder.md'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
