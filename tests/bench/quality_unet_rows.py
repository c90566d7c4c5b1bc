"""The rows of the quality benchmark of UNets: what each one is, and the pictures that it has.

Every row of a size draws the same prompts from the same seeds in the same steps. Pictures are uint8
[H, W, 3] and stay in a work folder, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from bench import quality_rows, quality_tiles
from bench.quality_rows import SINGLE, Pixels
from frieze.renderer import RenderSpec, plugins

TRAINED = 128
LET_GO = 50.0  # a detail factor at which the enlarged picture holds nothing, from the first step on


@dataclass(frozen=True)
class Row:
    """One way to draw: a method in given stages, or in its own (None).

    `native`: drawn at the trained size and then enlarged, or refined in tiles beyond that.
    """

    name: str
    method: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] | None = SINGLE
    native: Literal["", "enlarged", "refined"] = ""


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
        Row("native enlarged", native="enlarged"),
        Row("native enlarged, tiles refined", native="refined"),
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
        Row("cinescale, detail factor 1", "cinescale", {"detail": 1.0}, None),
        Row("cinescale, detail factor 4", "cinescale", {"detail": 4.0}, None),
        Row("cinescale, without detail factor", "cinescale", {"detail": LET_GO}, None),
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
        about = repr((row.method, sorted(row.options.items()), row.stages, row.native, steps))
        digest = hashlib.sha256(about.encode()).hexdigest()[:8]
        return Shelf(work / str(TRAINED * scale) / digest, row, scale, steps)

    def spec(self, seed: int) -> RenderSpec:
        """The render of a picture."""
        side = TRAINED * (1 if self.row.native else self.scale)
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
        return self.file(seed).exists()

    def draw(self, seed: int) -> None:
        """Draw one picture and note its CPU seconds; what is there stays."""
        if self.has(seed):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _warm()
        began = time.process_time()
        picture = quality_rows.rendered(self.spec(seed))
        if self.row.native:
            picture = quality_tiles.enlarged(picture, TRAINED * self.scale, TRAINED * self.scale)
        if self.row.native == "refined":
            picture = quality_tiles.refined(picture, quality_rows.prompt(seed), seed, "demo-unet")
        spent = time.process_time() - began
        self.file(seed).with_suffix(".seconds").write_text(str(spent))
        fresh = self.file(seed).with_suffix(".new")
        Image.fromarray(picture).save(fresh, format="PNG")
        fresh.replace(self.file(seed))

    def picture(self, seed: int) -> Pixels:
        """A picture that is drawn."""
        return np.array(Image.open(self.file(seed)))

    def seconds(self, seed: int) -> float:
        """CPU seconds that a picture took."""
        return float(self.file(seed).with_suffix(".seconds").read_text())

    def file(self, seed: int) -> Path:
        """Where a picture is, or will be."""
        return self.folder / f"{seed:04}.png"


@functools.cache
def _warm() -> None:
    """Have this process load all that any row needs, at no picture's cost."""
    quality_rows.rendered(Shelf(Path(), Row("first"), 1, 1).spec(0))
    quality_tiles.stock_unet()
