"""The rows of the decoder's benchmark: what makes a large picture of the same small latents.

Pictures are uint8 [H, W, 3] and stay in a work folder with their seconds, so that a stopped run
goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from bench import quality_decoder_latents as latents
from bench import quality_liif, quality_realesrgan, quality_rows, quality_tiles
from bench.quality_decoder_latents import SOURCES, Small, Source
from bench.quality_rows import NATIVE, Cell, Pixels, Settings
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.decoder import OWN
from frieze.renderer.demo import scenes
from frieze.renderer.spec.render_spec import NO_DECODER

# Enlarges what is known of a seed to so many pixels a side.
Enlarge = Callable[[Small, int, int], Pixels]
Kind = Literal[
    "scenes",
    "bicubic",
    "vae",
    "liif",
    "infgen",
    "realesrgan",
    "tiles",
    "auto",
    "staged",
    "redraw",
]
BLOCK = 256  # rows that InfGen draws at once
# Rows that are drawn at other sizes than four times the latent's too, by what is known of it.
ANY_SIZE = ("scenes", "bicubic", "vae", "liif", "infgen")


@dataclass(frozen=True)
class Row:
    """One way to a large picture.

    `model` is a decoder's folder, LIIF's file, the name of Real-ESRGAN's network or what holds a
    redraw, and its creativity; `staged` draws with `auto` to twice the trained side first. `slow`
    rows have fewer pictures.
    """

    name: str
    kind: Kind
    model: str = ""
    steps: int | None = None
    slow: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it enlarges; what diffusion draws itself has no scene behind it."""
        return SOURCES if self.kind not in ("auto", "staged", "tiles") else ("drawn",)

    @property
    def digest(self) -> str:
        """What decides its pictures, a decoder's weights included, as a few letters."""
        files = sorted(Path(self.model).glob("*.*")) if self.kind in ("infgen", "staged") else []
        files += [Path(self.model)] if self.kind == "liif" else []
        about = repr((self.name, self.kind, self.model, self.steps)).encode()
        return hashlib.sha256(about + b"".join(f.read_bytes() for f in files)).hexdigest()[:8]


def rows(decoder: Path, steps: tuple[int | None, ...], liif: Path | None = None) -> list[Row]:
    """Reference, controls, the decoder in so many steps, what people use, and `auto`."""
    found = [
        Row("scenes", "scenes"),
        Row("bicubic of the exact decode", "bicubic"),
        Row("exact decode of the enlarged latent", "vae"),
        *([Row("LIIF", "liif", str(liif))] if liif else []),
        *(Row(f"InfGen, {_steps(number)}", "infgen", str(decoder), number) for number in steps),
        Row("Real-ESRGAN animevideov3", "realesrgan", "animevideov3"),
        Row("Real-ESRGAN x4plus", "realesrgan", "x4plus", slow=True),
        Row("enlarged, tiles refined", "tiles", slow=True),
        Row("auto", "auto", slow=True),
        Row("auto to 512, InfGen beyond", "staged", str(decoder), steps[0], slow=True),
    ]
    has_them = quality_realesrgan.is_installed()
    return [row for row in found if row.kind != "realesrgan" or has_them]


def _steps(number: int | None) -> str:
    if number is None:
        return "its own steps"
    return "1 step" if number == 1 else f"{number} steps"


def infgen(folder: str | Path, steps: int | None) -> Enlarge:
    """The pictures of a decoder in a folder, in so many steps or in its own number."""
    network = _network(str(folder))

    @torch.no_grad()
    def enlarged(small: Small, side: int, seed: int) -> Pixels:
        latent = network.latent(small.z_1CHW, small.picture_13HW)
        parts = []
        for top in range(0, side, BLOCK):
            window = Window((side, side), range(top, min(side, top + BLOCK)), range(side))
            parts.append(network.draw(latent, window, seed=seed, num_steps=steps))
        return latents.to_pixels(torch.cat(parts, dim=2))

    return enlarged


@functools.lru_cache(maxsize=4)
def _network(folder: str) -> InfGenDecoder:
    network: InfGenDecoder = InfGenDecoder.from_pretrained(folder).eval()
    return network


def bicubic(small: Small, side: int, seed: int) -> Pixels:
    """The enlarged exact decode."""
    return quality_tiles.enlarged(small.pixels, side, side)


def of_enlarged_latent(small: Small, side: int, seed: int) -> Pixels:
    """The exact decode of the latent, enlarged."""
    cells = (side // 8, side // 8)
    return latents.to_pixels(latents.decoded(F.interpolate(small.z_1CHW, cells, mode="bicubic")))


def enlarge_of(row: Row, settings: Settings) -> Enlarge:
    """How a row makes its pictures."""
    match row.kind:
        case "scenes":
            return lambda small, side, seed: scenes.draw(scenes.scene_from(seed), side, side)
        case "bicubic":
            return bicubic
        case "vae":
            return of_enlarged_latent
        case "liif":
            return lambda small, side, seed: quality_liif.enlarged(row.model, small, side)
        case "infgen":
            return infgen(row.model, row.steps)
        case "realesrgan":
            return lambda small, side, seed: quality_realesrgan.enlarged(small.pixels, row.model)
        case "tiles":
            return lambda small, side, seed: quality_tiles.refined(
                bicubic(small, side, seed), quality_rows.prompt(seed), seed
            )
        case "auto":
            return lambda small, side, seed: quality_rows.rendered(auto(side, settings, seed))
        case "redraw":
            return lambda small, side, seed: redrawn(row, small, side, settings, seed)
        case "staged":
            return lambda small, side, seed: infgen(row.model, row.steps)(
                _with_decode(latents.drawn(auto(2 * NATIVE, settings, seed))), side, seed
            )


def redraw(guide: str, creativity: float, decoder: str = OWN) -> Row:
    """The decode redrawn, held by a guide, and enlarged by a decoder; none: at growing sizes."""
    how = "redrawn" if decoder != NO_DECODER else "redrawn at growing sizes"
    model = f"{guide} {creativity!r} {decoder}"
    return Row(f"{how}, {guide} {creativity:g}", "redraw", model, slow=True)


def redrawn(row: Row, small: Small, side: int, settings: Settings, seed: int) -> Pixels:
    """The decode as `frieze upscale --with render` makes it larger."""
    guide, creativity, decoder = row.model.split()
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(small.pixels).save(f"{folder}/small.png")
        asked = {"upscale": f"{folder}/small.png", "guide": guide, "creativity": creativity}
        asked |= {} if decoder == NO_DECODER else {"decoder": decoder}
        spec = auto(side, settings, seed).model_dump(exclude_unset=True)
        return quality_rows.rendered(quality_rows.RenderSpec.model_validate(spec | asked))


def _with_decode(z_1CHW: torch.Tensor) -> Small:
    return Small(z_1CHW, latents.decoded(z_1CHW))


def auto(side: int, settings: Settings, seed: int) -> quality_rows.RenderSpec:
    """The default method's render of a seed's prompt."""
    row = quality_rows.Row("auto", "method", "auto", cascade=True)
    return quality_rows.spec_of(row, Cell(side, side), settings, seed)


@dataclass(frozen=True)
class Shelf:
    """The pictures of one row at a size."""

    work: Path
    row: Row
    side: int
    settings: Settings

    @functools.cached_property
    def folder(self) -> Path:
        """Its name has what decides the pictures."""
        about = f"{self.row.digest}-{self.settings.steps}-{self.settings.shift:g}"
        return self.work / str(self.side) / about

    def file(self, source: Source, seed: int) -> Path:
        """Where a picture is, or will be."""
        return self.folder / f"{source}-{seed:04}.png"

    def has(self, source: Source, seed: int) -> bool:
        """Whether a picture is drawn."""
        return self.file(source, seed).exists()

    def draw(self, source: Source, seed: int) -> None:
        """Draw a picture, and the same at half the size where the row can; note the seconds."""
        if self.has(source, seed):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file, small = self.file(source, seed), latents.small(self.work, source, seed, self.settings)
        enlarge = enlarge_of(self.row, self.settings)
        began = time.process_time()
        picture = enlarge(small, self.side, seed)
        file.with_suffix(".seconds").write_text(str(time.process_time() - began))
        if self.row.kind in ANY_SIZE:
            half = enlarge(small, self.side // 2, seed)
            Image.fromarray(half).save(file.with_suffix(".half"), format="PNG")
        Image.fromarray(picture).save(file.with_suffix(".new"), format="PNG")
        file.with_suffix(".new").replace(file)

    def picture(self, source: Source, seed: int) -> Pixels:
        """A picture that is drawn."""
        return np.array(Image.open(self.file(source, seed)))

    def half(self, source: Source, seed: int) -> Pixels | None:
        """The same drawn at half the size, where the row can."""
        file = self.file(source, seed).with_suffix(".half")
        return np.array(Image.open(file)) if file.exists() else None

    def seconds(self, source: Source, seed: int) -> float:
        """CPU seconds that a picture took beyond its latents."""
        return float(self.file(source, seed).with_suffix(".seconds").read_text())
