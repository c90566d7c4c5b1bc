"""Small trainings of a decoder: a tiny model, a tiny network, a folder of small pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from checkpoints import build
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.demo import scenes
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.training import recipe as recipes
from frieze.renderer.training.training_run import train_decoder
from support.decoders import saved

# Rows and columns; the model draws such shapes with 128 x 128 pixels.
SIZES = ((192, 192), (160, 256), (256, 160))
SMALL: dict[str, Any] = {"steps": 4, "batch": 2, "crop": 16, "scale": 2.0, "pictures": 4}


def make(
    folder: Path, pictures: int = 30, sizes: tuple[tuple[int, int], ...] = SIZES
) -> dict[str, Any]:
    """A model, a decoder to start from and pictures, by the fields of a recipe."""
    model = build("sd15", folder / "model")
    start = saved(folder / "start", model)
    (folder / "data" / "more").mkdir(parents=True)
    for number in range(pictures):
        height, width = sizes[number % len(sizes)]
        drawn = scenes.draw(scenes.scene_from(number), height, width)
        place = folder / "data" / ("more" if number % 2 else "")
        suffix = "png" if number % 3 else "jpg"
        Image.fromarray(drawn).save(place / f"{number:02}.{suffix}")
    (folder / "data" / "readme.txt").write_text("no picture")
    return {"model": str(model), "start": str(start), "data": str(folder / "data")}


def words(made: dict[str, Any], out: Path, **more: Any) -> list[str]:
    """The same as words of a command line."""
    fields = {**made, **SMALL, "out": out, **more}
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in fields.items()]
    return ["train", "decoder", *(word for pair in pairs for word in pair)]


def train(made: dict[str, Any], out: Path, **more: Any) -> Path:
    """Train in this process; fields of the workers are told apart by their names."""
    place = {name: more.pop(name) for name in ("workers", "local", "wait") if name in more}
    options = {n: more.pop(n) for n in ("continued", "save_every", "tell", "cancel") if n in more}
    recipe = recipes.of({**made, **SMALL, **more})
    return train_decoder(recipe, str(out), RenderSpec(**place), **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of a decoder's folder."""
    return InfGenDecoder.from_pretrained(folder).state_dict()


def apart(one: Path, other: Path) -> float:
    """How far two decoders are apart: the most of each tensor's difference by its own length."""
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in pairs)


def strayed(one: Path, other: Path, start: Path) -> float:
    """How far two trainings came apart, as a share of the way from their start to the first's end.

    Of all weights together: in Adam's first steps one whose gradient is all but nothing goes
    either way, and which ones those are is another processor's rounding.
    """
    folders = (one, other, start)
    first, second, begun = (torch.cat([w.flatten() for w in weights(f).values()]) for f in folders)
    return float((first - second).norm() / (first - begun).norm())


def sheet(folder: Path) -> np.ndarray:
    """The samples of a training, [H, W, 3]."""
    with Image.open(folder / "training" / "samples.png") as image:
        return np.asarray(image)
