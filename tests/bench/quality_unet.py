"""Methods for UNets side by side on the demo's UNet, which duplicates beyond its trained size.

Every row of a size draws the same prompts from the same seeds in the same steps. Pictures stay in a
work folder, so that a stopped run goes on where it was; all rows draw a seed before any draws the
next, and both sizes go on at their pace. Writes a table, a CSV and a contact sheet for each size,
and a strip of both, to tests/bench/results.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import features, quality_rows
from bench import quality_metrics as metrics
from bench.quality_metrics import Estimate, Floats
from bench.quality_report import machine
from bench.quality_rows import REALS, Pixels
from bench.quality_unet_rows import TRAINED, Shelf, rows
from bench.quality_unet_sheets import sheet, strip
from frieze.renderer.demo import oracle, scenes
from frieze.renderer.errors import FriezeError

RESULTS = Path(__file__).parent / "results"
NOTES = Path(__file__).with_name("quality_unet_notes.md")
# What one part of a method does.
PAIRS = (
    ("hidiffusion", "direct"),
    ("hidiffusion, strided 0.3 and pooled 0.7", "direct"),
    ("hidiffusion, strided 0.3 and pooled 0.7", "the same, RAU-Net alone"),
    ("cascade", "direct"),
    ("cinescale", "direct"),
    ("cinescale", "cascade"),
    ("cinescale", "native enlarged, tiles refined"),
    ("cinescale", "cinescale, no fusion"),
    ("cinescale, fusion hw", "cinescale, no fusion"),
    ("cinescale", "cinescale, no dilation"),
    ("cinescale", "cinescale, no FreeU"),
    ("cinescale", "cinescale, without detail factor"),
)
LEGEND = """\
Each figure is followed by its 95 % interval (bootstrap over pictures; of shares Wilson's).
*suns*: the mean number that the oracle counts. *one sun*, *right colour*, *landscape* (sky above
mountains, both as asked): shares of pictures. *KID*: kernel distance from {reals} real scenes of
the size for each prompt, of the picture reduced to the trained size and of crops of that size, in
features of `tests/bench/features.py`. *detail*: energy above 1/4 cycle per pixel, real scenes = 1.
*seconds*: CPU time of a picture, one thread."""


@functools.cache
def real(scale: int, seed: int) -> tuple[Pixels, ...]:
    """Scenes of a seed's prompt at a size, in layouts that no row draws."""
    side, numbers = TRAINED * scale, range(REALS * seed, REALS * (seed + 1))
    return tuple(scenes.draw(quality_rows.real_scene(n), side, side) for n in numbers)


def figures(shelf: Shelf, seeds: Sequence[int]) -> dict[str, Estimate]:
    """What a row's pictures show, each figure with its interval of 95 %."""
    rng = np.random.default_rng(0)
    beside = [real(shelf.scale, seed) for seed in seeds]
    prompts = [quality_rows.prompt(seed) for seed in seeds]
    verdicts = [oracle.judge(shelf.picture(seed)) for seed in seeds]
    pairs = [(v, scenes.parse(p)) for v, p in zip(verdicts, prompts, strict=True)]
    named = [v.upright and (v.time, v.mountains) == (a.time, a.mountains) for v, a in pairs]
    details = np.array([np.mean([oracle.detail(p) for p in group]) for group in beside])
    return {
        "suns": metrics.mean([float(v.suns) for v in verdicts], rng),
        "one sun": metrics.share([v.suns == 1 for v in verdicts]),
        "right colour": metrics.share([set(v.colours) == {a.sun} for v, a in pairs]),
        "landscape": metrics.share(named),
        "layout KID": metrics.kid(*_features(shelf, seeds, reduced), rng),
        "crop KID": metrics.kid(*_features(shelf, seeds, crops), rng),
        "detail": metrics.ratio(np.array([v.detail for v in verdicts]), details, rng),
        "seconds": metrics.mean([shelf.seconds(seed) for seed in seeds], rng),
    }


Parts = Callable[[Pixels], list[Pixels]]


def reduced(picture: Pixels) -> list[Pixels]:
    """The picture at the trained size."""
    small = Image.fromarray(picture).resize((TRAINED, TRAINED), Image.Resampling.BOX)
    return [np.asarray(small)]


def crops(picture: Pixels) -> list[Pixels]:
    """Windows of the trained size."""
    return metrics.crops(picture, TRAINED)


def _features(shelf: Shelf, seeds: Sequence[int], parts: Parts) -> tuple[Floats, Floats]:
    """Of a row's pictures, and of real scenes beside each."""
    drawn = [_of_drawn(shelf.file(seed), parts) for seed in seeds]
    return np.stack(drawn), np.stack([_of_real(shelf.scale, seed, parts) for seed in seeds])


@functools.cache
def _of_drawn(file: Path, parts: Parts) -> Floats:
    return features.features(features.load(), parts(np.array(Image.open(file))))


@functools.cache
def _of_real(scale: int, seed: int, parts: Parts) -> Floats:
    of_seed = [part for picture in real(scale, seed) for part in parts(picture)]
    return features.features(features.load(), of_seed)


Judged = list[tuple[Shelf, int, dict[str, Estimate]]]


def judged(shelves: Sequence[Shelf], number: int) -> Judged:
    """Rows of two pictures or more, how many each has, and its figures."""
    found = []
    for shelf in shelves:
        seeds = [seed for seed in range(number) if shelf.has(seed)]
        if len(seeds) > 1:
            found.append((shelf, len(seeds), figures(shelf, seeds)))
    return found


def table(scale: int, found: Judged) -> Iterator[str]:
    """The lines of a size in Markdown."""
    columns = list(found[0][2])
    side = TRAINED * scale
    yield f"\n## {side} x {side}, {scale} times the trained side\n"
    yield "| row | n | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for shelf, number, row in found:
        shown = " | ".join(_shown(e) for e in row.values())
        yield f"| {shelf.row.name} | {number} | {shown} |"
    yield from differences(found)
    yield f"\n![Rows of the table, the same seeds side by side](quality_unet-{side}.jpg)"


def differences(found: Judged) -> Iterator[str]:
    """The lines of what one part of a method does, over the same seeds, in Markdown."""
    shelves = {shelf.row.name: shelf for shelf, _, _ in found}
    pairs = [pair for pair in PAIRS if shelves.keys() >= {*pair}]
    number = min(number for _, number, _ in found)
    yield "\n| the first less the second | n | suns | layout KID | crop KID | detail |"
    yield "|---|---|---|---|---|---|"
    for pair in pairs:
        first, second = (shelves[name] for name in pair)
        seeds = [seed for seed in range(number) if first.has(seed) and second.has(seed)]
        if len(seeds) < 2:
            continue
        shown = " | ".join(_shown(e) for e in _less(first, second, seeds))
        yield f"| {pair[0]} - {pair[1]} | {len(seeds)} | {shown} |"


def _less(first: Shelf, second: Shelf, seeds: Sequence[int]) -> Iterator[Estimate]:
    """Differences of suns, distances of layout and crops, and detail, pictures being paired."""
    rng = np.random.default_rng(0)
    judged = [[oracle.judge(each.picture(seed)) for seed in seeds] for each in (first, second)]
    yield metrics.mean([float(a.suns - b.suns) for a, b in zip(*judged, strict=True)], rng)
    for parts in (reduced, crops):
        (x, real_ones), (z, _) = (_features(each, seeds, parts) for each in (first, second))
        yield metrics.kid_difference(x, z, real_ones, rng)
    yield metrics.mean([a.detail - b.detail for a, b in zip(*judged, strict=True)], rng)


def _shown(e: Estimate) -> str:
    return f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})"


def write(folder: Path, work: Path, found: Mapping[int, Judged], command: str, steps: int) -> None:
    """quality_unet.md, quality_unet.csv, a contact sheet for each size and a strip of both."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"`{command}`\n\n{machine()}; torch {torch.__version__}. {steps} steps at full noise."
    lines = ["# Methods for UNets on the demo's UNet\n", about, "", LEGEND.format(reals=REALS)]
    shelves = {scale: [line[0] for line in of_size] for scale, of_size in found.items()}
    pictures = {f"-{TRAINED * scale}": sheet(of_size) for scale, of_size in shelves.items()}
    for name, picture in (pictures | {"": strip(work, shelves, steps)}).items():
        picture.save(folder / f"quality_unet{name}.jpg", quality=75, optimize=True)
    for scale, of_size in found.items():
        lines += table(scale, of_size)
    lines += ["", NOTES.read_text(encoding="utf-8").strip()]
    (folder / "quality_unet.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "quality_unet.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("side", "row", "pictures", "column", "value", "low", "high"))
        for scale, of_size in found.items():
            for shelf, number, row in of_size:
                about_row = (TRAINED * scale, shelf.row.name, number)
                for column, e in row.items():
                    values = (f"{x:.6g}" for x in (e.value, e.low, e.high))
                    writer.writerow((*about_row, column, *values))


def order(
    shelves: Mapping[int, Sequence[Shelf]], numbers: Mapping[int, int]
) -> Iterator[tuple[int, Shelf]]:
    """Seeds and rows in turn, so that the sizes end together."""
    turns = [((seed + 0.5) / n, scale, seed) for scale, n in numbers.items() for seed in range(n)]
    for _, scale, seed in sorted(turns):
        yield from ((seed, shelf) for shelf in shelves[scale])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40, help="of each row at twice the side")
    parser.add_argument("--pictures-large", type=int, default=16, help="the same at four times")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then only report")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-unet"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * asked.minutes
    numbers = {2: asked.pictures, 4: asked.pictures_large}
    shelves = {
        scale: [Shelf.of(asked.work, row, scale, asked.steps) for row in rows(scale)]
        for scale in numbers
    }
    for seed, shelf in order(shelves, numbers):
        if time.monotonic() > until:
            break
        try:
            shelf.draw(seed)
        except FriezeError as error:
            print(f"{shelf.row.name} at {shelf.scale}x, {seed}: {error}", flush=True)
    found = {scale: judged(shelves[scale], number) for scale, number in numbers.items()}
    amounts = f"--pictures {asked.pictures} --pictures-large {asked.pictures_large}"
    command = f"python tests/bench/quality_unet.py {amounts} --steps {asked.steps}"
    write(asked.out, asked.work, {k: v for k, v in found.items() if v}, command, asked.steps)
    print(f"{asked.out / 'quality_unet.md'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
