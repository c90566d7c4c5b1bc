"""What the rows of the quality benchmark of UNets look like: contact sheets, and their essence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.quality_unet_rows import TRAINED, Row, Shelf

THUMB, LABEL, SEEDS = 112, 190, 5
# Of the strip: what stands beside the picture of the trained size, over the first two seeds.
SHOWN = {
    "direct": "direct",
    "hidiffusion, strided 0.3 and pooled 0.7": "hidiffusion",
    "cinescale": "cinescale",
}
STRIP, HEAD = 150, 18


def sheet(shelves: Sequence[Shelf]) -> Image.Image:
    """The rows of a size, the same seeds side by side, each with its name."""
    canvas = Image.new("RGB", (LABEL + SEEDS * THUMB, len(shelves) * THUMB), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for index, shelf in enumerate(shelves):
        name = shelf.row.name.replace(", ", ",\n").replace(" and detail", "\nand detail")
        pen.text((6, index * THUMB + 6), name, fill="black", font=font)
        for column, seed in enumerate(seed for seed in range(SEEDS) if shelf.has(seed)):
            canvas.paste(_thumb(shelf, seed, THUMB), (LABEL + column * THUMB, index * THUMB))
    return canvas


def strip(work: Path, found: Mapping[int, Sequence[Shelf]], steps: int) -> Image.Image:
    """The first two seeds as trained, drawn directly and by either method; a line for each size.

    Raises KeyError where one of these rows is missing.
    """
    small = Shelf.of(work, Row("native enlarged", native="enlarged"), 2, steps)
    names = [f"{TRAINED} px", *SHOWN.values()]
    canvas = Image.new("RGB", (2 * len(names) * STRIP, len(found) * STRIP + HEAD), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for line, (scale, of_size) in enumerate(found.items()):
        by_name = {shelf.row.name: shelf for shelf in of_size}
        shelves = [small, *(by_name[name] for name in SHOWN)]
        for turn, (index, shelf) in itertools.product(range(2), enumerate(shelves)):
            left = (len(names) * turn + index) * STRIP
            pen.text((left + 2, 1), names[index], fill="black", font=font)
            thumb = _thumb(shelf, turn, STRIP - 2)
            canvas.paste(thumb, (left, HEAD + line * STRIP))
        pen.text((6, HEAD + line * STRIP + 4), f"{scale}x", fill="white", font=font)
    return canvas


def _thumb(shelf: Shelf, seed: int, side: int) -> Image.Image:
    return Image.fromarray(shelf.picture(seed)).resize((side, side), Image.Resampling.LANCZOS)
