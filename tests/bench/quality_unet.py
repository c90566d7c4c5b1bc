"""Methods for UNets side by side on the demo's UNet, which duplicates beyond its trained size.

Every row of a size draws the same prompts from the same seeds in the same steps. Pictures stay in a
work folder, so that a stopped run goes on where it was; all rows draw a seed before any draws the
next. Writes a table, a CSV and a contact sheet for each size to tests/bench/results.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import features, quality_rows, quality_tiles
from bench import quality_metrics as metrics
from bench.quality_metrics import Estimate
from bench.quality_report import machine
from bench.quality_rows import REALS, Pixels
from frieze.renderer import RenderSpec, plugins
from frieze.renderer.demo import oracle, scenes
from frieze.renderer.errors import FriezeError

RESULTS = Path(__file__).parent / "results"
TRAINED = 128
SINGLE = ({"scale": 1.0, "start": 1.0},)
THUMB, LABEL, SEEDS = 128, 190, 8
LEGEND = """\
Each figure is followed by its 95 % interval (bootstrap over pictures; of shares Wilson's).
*suns*: the mean number that the oracle counts. *one sun*, *right colour*, *landscape* (sky above
mountains, both as asked): shares of pictures. *KID*: kernel distance from {reals} real scenes of
the size for each prompt, of the picture reduced to the trained size and of crops of that size, in
features of `tests/bench/features.py`. *detail*: energy above 1/4 cycle per pixel, real scenes = 1.
*seconds*: CPU time of a picture, one thread."""


@dataclass(frozen=True)
class Row:
    """One way to draw: a method in given stages, or in its own (None)."""

    name: str
    method: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] | None = SINGLE
    enlarged: bool = False


def cascade(scale: int, start: float = 0.7) -> tuple[Mapping[str, Any], ...]:
    """Stages from the trained size on, each twice as large as the one before."""
    sides = [2**level / scale for level in range(scale.bit_length())]
    return tuple({"scale": side, "start": start if i else 1.0} for i, side in enumerate(sides))


def rows(scale: int) -> list[Row]:
    """What is drawn at a size, as far as there are the methods."""
    late = {"schedule": "progressive", "strided": 0.3, "pooled": 0.7}
    bare = {"fusion": "none", "dilation": False, "free_u": False}
    found = [
        Row("direct"),
        Row("native enlarged", enlarged=True),
        Row("hidiffusion", "hidiffusion"),
        Row("hidiffusion, RAU-Net alone", "hidiffusion", {"windows": False}),
        Row("hidiffusion, windows alone", "hidiffusion", {"raunet": False}),
        Row("hidiffusion, strided 0.3 and pooled 0.7", "hidiffusion", late),
        Row("the same, RAU-Net alone", "hidiffusion", {**late, "windows": False}),
        Row("cascade", stages=cascade(scale)),
        Row("cascade from 0.5", stages=cascade(scale, 0.5)),
        Row("cinescale", "cinescale", stages=None),
        Row("cinescale, fusion hw", "cinescale", {"fusion": "hw"}, None),
        Row("cinescale, no fusion", "cinescale", {"fusion": "none"}, None),
        Row("cinescale, no dilation", "cinescale", {"dilation": False}, None),
        Row("cinescale, no FreeU", "cinescale", {"free_u": False}, None),
        Row("cinescale, its cascade and detail factor alone", "cinescale", bare, None),
    ]
    return [row for row in found if row.method in plugins.names("methods")]


@dataclass(frozen=True)
class Shelf:
    """Pictures of a row at a size, in a folder whose name has what decides them."""

    folder: Path
    row: Row
    scale: int
    steps: int

    @staticmethod
    def of(work: Path, row: Row, scale: int, steps: int) -> Shelf:
        about = repr((row.method, sorted(row.options.items()), row.stages, row.enlarged, steps))
        digest = hashlib.sha256(about.encode()).hexdigest()[:8]
        return Shelf(work / str(TRAINED * scale) / digest, row, scale, steps)

    def spec(self, seed: int) -> RenderSpec:
        """The render of a picture."""
        side = TRAINED * (1 if self.row.enlarged else self.scale)
        return RenderSpec(
            prompt=quality_rows.prompt(seed),
            seed=seed,
            model="demo-unet",
            height=side,
            width=side,
            method=self.row.method,
            method_options=dict(self.row.options),
            stages=self.row.stages,
            num_inference_steps=self.steps,
            local=True,
        )

    def has(self, seed: int) -> bool:
        """Whether a picture is drawn."""
        return self._file(seed).exists()

    def draw(self, seed: int) -> None:
        """Draw one picture and note its CPU seconds; what is there stays."""
        if self.has(seed):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _warm()
        began = time.process_time()
        picture = quality_rows.rendered(self.spec(seed))
        if self.row.enlarged:
            picture = quality_tiles.enlarged(picture, TRAINED * self.scale, TRAINED * self.scale)
        spent = time.process_time() - began
        self._file(seed).with_suffix(".seconds").write_text(str(spent))
        fresh = self._file(seed).with_suffix(".new")
        Image.fromarray(picture).save(fresh, format="PNG")
        fresh.replace(self._file(seed))

    def picture(self, seed: int) -> Pixels:
        """A picture that is drawn."""
        return np.array(Image.open(self._file(seed)))

    def seconds(self, seed: int) -> float:
        """CPU seconds that a picture took."""
        return float(self._file(seed).with_suffix(".seconds").read_text())

    def _file(self, seed: int) -> Path:
        return self.folder / f"{seed:04}.png"


@functools.cache
def _warm() -> None:
    """Have this process load all that a render needs, at no picture's cost."""
    quality_rows.rendered(Shelf(Path(), Row("first"), 1, 1).spec(0))


@functools.cache
def real(scale: int, seed: int) -> tuple[Pixels, ...]:
    """Scenes of a seed's prompt at a size, in layouts that no row draws."""
    side, numbers = TRAINED * scale, range(REALS * seed, REALS * (seed + 1))
    return tuple(scenes.draw(quality_rows.real_scene(n), side, side) for n in numbers)


def figures(shelf: Shelf, seeds: Sequence[int]) -> dict[str, Estimate]:
    """What a row's pictures show, each figure with its interval of 95 %."""
    rng = np.random.default_rng(0)
    pictures = [shelf.picture(seed) for seed in seeds]
    beside = [real(shelf.scale, seed) for seed in seeds]
    prompts = [quality_rows.prompt(seed) for seed in seeds]
    verdicts = [oracle.judge(picture) for picture in pictures]
    pairs = [(v, scenes.parse(p)) for v, p in zip(verdicts, prompts, strict=True)]
    named = [v.upright and (v.time, v.mountains) == (a.time, a.mountains) for v, a in pairs]
    details = np.array([np.mean([oracle.detail(p) for p in group]) for group in beside])
    return {
        "suns": metrics.mean([float(v.suns) for v in verdicts], rng),
        "one sun": metrics.share([v.suns == 1 for v in verdicts]),
        "right colour": metrics.share([set(v.colours) == {a.sun} for v, a in pairs]),
        "landscape": metrics.share(named),
        "layout KID": _kid(pictures, beside, _reduced, rng),
        "crop KID": _kid(pictures, beside, _crops, rng),
        "detail": metrics.ratio(np.array([v.detail for v in verdicts]), details, rng),
        "seconds": metrics.mean([shelf.seconds(seed) for seed in seeds], rng),
    }


def _reduced(picture: Pixels) -> list[Pixels]:
    small = Image.fromarray(picture).resize((TRAINED, TRAINED), Image.Resampling.BOX)
    return [np.asarray(small)]


def _crops(picture: Pixels) -> list[Pixels]:
    return metrics.crops(picture, TRAINED)


def _kid(
    pictures: Sequence[Pixels],
    beside: Sequence[Sequence[Pixels]],
    parts: Callable[[Pixels], list[Pixels]],
    rng: np.random.Generator,
) -> Estimate:
    network = features.load()
    x_NKF = np.stack([features.features(network, parts(picture)) for picture in pictures])
    y_NJF = np.stack(
        [features.features(network, [q for p in group for q in parts(p)]) for group in beside]
    )
    return metrics.kid(x_NKF, y_NJF, rng)


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
        shown = [f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for e in row.values()]
        yield f"| {shelf.row.name} | {number} | " + " | ".join(shown) + " |"
    yield f"\n![Rows of the table, the same seeds side by side](quality_unet-{side}.png)"


def sheet(found: Judged) -> Image.Image:
    """The rows of a size, the same seeds side by side, each with its name."""
    canvas = Image.new("RGB", (LABEL + SEEDS * THUMB, len(found) * THUMB), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for index, (shelf, _, _) in enumerate(found):
        name = shelf.row.name.replace(", ", ",\n")
        pen.text((6, index * THUMB + 6), name, fill="black", font=font)
        for column, seed in enumerate(seed for seed in range(SEEDS) if shelf.has(seed)):
            thumb = Image.fromarray(shelf.picture(seed)).resize((THUMB, THUMB))
            canvas.paste(thumb, (LABEL + column * THUMB, index * THUMB))
    return canvas


def write(folder: Path, found: Mapping[int, Judged], command: str, steps: int) -> None:
    """quality_unet.md, quality_unet.csv and a contact sheet for each size."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"`{command}`\n\n{machine()}; torch {torch.__version__}. {steps} steps at full noise."
    lines = ["# Methods for UNets on the demo's UNet\n", about, "", LEGEND.format(reals=REALS)]
    for scale, of_size in found.items():
        lines += table(scale, of_size)
        sheet(of_size).save(folder / f"quality_unet-{TRAINED * scale}.png", optimize=True)
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
    found = {}
    for scale, number in ((2, asked.pictures), (4, asked.pictures_large)):
        shelves = [Shelf.of(asked.work, row, scale, asked.steps) for row in rows(scale)]
        for seed, shelf in itertools.product(range(number), shelves):
            if time.monotonic() > until:
                break
            try:
                shelf.draw(seed)
            except FriezeError as error:
                print(f"{shelf.row.name} at {scale}x, {seed}: {error}", flush=True)
        if of_size := judged(shelves, number):
            found[scale] = of_size
    command = shlex.join(["python", "tests/bench/quality_unet.py", *sys.argv[1:]])
    write(asked.out, found, command, asked.steps)
    print(f"{asked.out / 'quality_unet.md'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
