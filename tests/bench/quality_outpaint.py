"""Pictures of the demo that are drawn around: the middle third of a scene, made whole again.

A scene is drawn at 1536 x 1536, and its middle of 512 is what a render is given. Written are how
many suns there are, whether the landscape is in order, how far the horizon jumps at the borders of
what was given, and how much steeper the picture is there than beside: quality_outpaint.md, with a
contact sheet. The scenes themselves are the best there is; what was given on a smear of its edges
is a control, which must be seen. Pictures stay in a work folder, so that a run goes on.
Shape legend: H rows, W columns, C colours.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.quality_processes import run
from bench.quality_report import machine
from frieze.renderer import RenderSpec, render
from frieze.renderer.demo import oracle, scenes

RESULTS = Path(__file__).parent / "results"
Pixels = NDArray[np.uint8]
SIDE, GIVEN = 1536, 512
FIRST, LAST = (SIDE - GIVEN) // 2, (SIDE + GIVEN) // 2
FIRST_SCENE = 1000  # of seeds that the demo was not trained on
OWN = {"decoder": "infgen"}
# Fields of each row; None: no render.
ROWS: Mapping[str, dict[str, Any] | None] = {
    "the scene itself": None,
    "its edges go on (control)": None,
    "as before: cascade, strength 0.6": {"strength": 0.6, "resamplings": 1},
    "cascade, from noise": {"resamplings": 1},
    "cascade, resampled": {"feather": 16},
    "decoder, strength 0.6": OWN | {"strength": 0.6, "resamplings": 1},
    "decoder, from noise": OWN | {"resamplings": 1},
    "decoder, resampled (default)": OWN,
    "decoder, resampled, feather 64": OWN | {"feather": 64},
}
# The horizon: what is compared on both sides of a border, and how far it is looked for, in pixels.
STRIP, APART, FARTHEST, CELL = 24, 24, 120, 6
THUMB, LABEL = 104, 150


@dataclass(frozen=True)
class Shelf:
    """The pictures of one row."""

    work: Path
    name: str

    def file(self, seed: int) -> Path:
        """Where a picture lies."""
        slug = "".join(c if c.isalnum() else "-" for c in self.name)
        return self.work / slug / f"{seed:04}.png"

    def draw(self, seed: int) -> None:
        """A picture of this row, drawn."""
        file, fields = self.file(seed), ROWS[self.name]
        file.parent.mkdir(parents=True, exist_ok=True)
        scene = scenes.scene_from(FIRST_SCENE + seed)
        if fields is None:
            Image.fromarray(_control(scene, self.name)).save(file)
            return
        given = self.work / f"given-{seed:04}-{os.getpid()}.png"
        Image.fromarray(middle(scene)).save(given)
        render(
            RenderSpec(
                prompt=scenes.prompt_of(scene),
                init=str(given),
                place=f"{FIRST},{FIRST}",
                height=SIDE,
                width=SIDE,
                seed=seed,
                local=True,
                out=str(file),
                overwrite=True,
                **fields,
            )
        )
        given.unlink()

    def picture(self, seed: int) -> Pixels:
        """A picture that is drawn."""
        return np.asarray(Image.open(self.file(seed)))


def middle(scene: scenes.Scene) -> Pixels:
    """What is given of a scene."""
    return scenes.draw(scene, SIDE, SIDE, (FIRST, FIRST, GIVEN, GIVEN))


def _control(scene: scenes.Scene, name: str) -> Pixels:
    """The scene, or what is given of it with its edges drawn out."""
    if name == next(iter(ROWS)):
        return scenes.draw(scene, SIDE, SIDE)
    return np.pad(middle(scene), ((FIRST, FIRST), (FIRST, FIRST), (0, 0)), mode="edge")


def horizon_jump(picture_HWC: Pixels) -> float:
    """How far rows beside the given part's left and right borders are apart, in % of the side.

    Of columns on both sides it is the shift at which their rows agree best.
    """
    jumps = []
    for edge, out in ((FIRST, -1), (LAST, 1)):
        inside, outside = (_rows(picture_HWC, edge + sign * APART, sign) for sign in (-out, out))
        margin = FARTHEST // CELL
        span = slice(FIRST // CELL + margin, LAST // CELL - margin)
        apart = {
            shift: float(np.abs(outside[_moved(span, shift)] - inside[span]).mean())
            for shift in range(-margin, margin + 1)
        }
        best = min(apart, key=lambda shift: (apart[shift], abs(shift)))
        jumps.append(abs(best) * CELL / SIDE * 100)
    return float(np.mean(jumps))


def _rows(picture_HWC: Pixels, start: int, sign: int) -> NDArray[np.float64]:
    """Mean colours of rows of a strip, of cells of some rows."""
    left = start if sign > 0 else start - STRIP
    means = picture_HWC[:, left : left + STRIP].astype(float).mean(1)
    return np.asarray(means.reshape(-1, CELL, 3).mean(1))


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def border_ratio(picture_HWC: Pixels) -> float:
    """The mean step between pixels across the given part's borders, over that beside them.

    Across is within the feather, 16 pixels inside; beside, as many pixels on either side of it.
    """
    picture, feather = picture_HWC.astype(float), 16
    across, beside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis)).mean(2)
        steps = steps if axis else steps.T  # [lines along the border, across it]
        steps = steps[FIRST:LAST]
        for edge, inwards in ((FIRST, 1), (LAST, -1)):
            places = sorted((edge - inwards, edge + inwards * (feather + 1)))
            across.append(steps[:, slice(*places)].mean())
            width = places[1] - places[0]
            starts = (places[0] - width, places[1])
            beside += [steps[:, start : start + width].mean() for start in starts]
    return float(np.mean(across) / np.mean(beside))


COLUMNS: Mapping[str, Callable[[Pixels], float]] = {
    "one sun": lambda picture: float(oracle.judge(picture).suns == 1),
    "suns": lambda picture: float(oracle.judge(picture).suns),
    "right order": lambda picture: float(oracle.judge(picture).upright),
    "horizon jump, % of the side": horizon_jump,
    "border ratio": border_ratio,
}


def tasks(shelves: list[Shelf], number: int) -> Iterator[tuple[Shelf, int]]:
    """(shelf, seed) of what is missing, all rows of a seed before the next one."""
    for seed, shelf in itertools.product(range(number), shelves):
        if not shelf.file(seed).exists():
            yield shelf, seed


def work(task: tuple[Shelf, int]) -> str:
    """Draw one; what to say of it."""
    shelf, seed = task
    began = time.monotonic()
    shelf.draw(seed)
    return f"{shelf.name} {seed}: {time.monotonic() - began:.0f} s"


def table(shelves: list[Shelf], number: int) -> list[str]:
    """The rows as Markdown: means, and of the last two columns the largest too."""
    lines = ["| row | pictures | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (2 + len(COLUMNS)) + "|")
    for shelf in shelves:
        seeds = [seed for seed in range(number) if shelf.file(seed).exists()]
        if not seeds:
            continue
        found = np.array([[f(shelf.picture(s)) for f in COLUMNS.values()] for s in seeds])
        means = [f"{mean:.2f}" for mean in found.mean(0)]
        most = found.max(0)[-2:]
        means[-2:] = (f"{a} (most {b:.2f})" for a, b in zip(means[-2:], most, strict=True))
        lines.append(f"| {shelf.name} | {len(seeds)} | " + " | ".join(means) + " |")
    return lines


def sheet(shelves: list[Shelf], number: int) -> Image.Image:
    """Rows under each other, the same seeds side by side."""
    shown = [shelf for shelf in shelves if any(shelf.file(s).exists() for s in range(number))]
    canvas = Image.new("RGB", (LABEL + number * THUMB, len(shown) * THUMB), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for index, shelf in enumerate(shown):
        pen.text((4, index * THUMB + 4), shelf.name.replace(", ", ",\n"), "black", font)
        for seed in (seed for seed in range(number) if shelf.file(seed).exists()):
            thumb = Image.fromarray(shelf.picture(seed)).resize((THUMB - 2,) * 2)
            canvas.paste(thumb, (LABEL + seed * THUMB, index * THUMB))
    return canvas


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--rows", default="", help="parts of names with commas; default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then only report")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-outpaint"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    shelves = [Shelf(asked.work, name) for name in ROWS]
    wanted = [part for part in asked.rows.split(",") if part]
    drawn = [shelf for shelf in shelves if not wanted or any(p in shelf.name for p in wanted)]
    run(work, tasks(drawn, asked.pictures), asked.jobs, time.monotonic() + 60 * asked.minutes)
    file = asked.out / "quality_outpaint.md"
    lines = ["# 512 pixels made 1536: the middle third of a scene, drawn around\n"]
    command = f"python tests/bench/quality_outpaint.py --pictures {asked.pictures}"
    lines += [f"`{command}`, {machine()}.\n"]
    lines += table(shelves, asked.pictures)
    lines += ["\n![contact sheet](quality_outpaint.jpg)"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sheet(shelves, asked.pictures).save(file.with_suffix(".jpg"), quality=80)
    print(file)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
