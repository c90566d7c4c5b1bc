"""Small trainings of a LoRA: tiny models, a folder of captioned pictures or clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from checkpoints import build
from frieze.renderer.demo import scenes
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.training.lora import lora_recipe
from frieze.renderer.training.lora.lora_run import train_lora

SMALL: dict[str, Any] = {"height": 64, "width": 96, "steps": 3, "batch": 2, "rank": 2, "rate": 0.01}


def tiny_flux(folder: Path) -> Path:
    """A FLUX trained, as it says, on pictures that are smaller than those here."""
    model = build("flux", folder)
    (model / "frieze.json").write_text(json.dumps({"training_size": 64}))
    return model


def pictures(folder: Path, number: int = 4, size: tuple[int, int] = (80, 112)) -> Path:
    """Scenes in files, each with its caption in a text beside it."""
    folder.mkdir(parents=True)
    for index in range(number):
        scene = scenes.scene_from(index)
        Image.fromarray(scenes.draw(scene, *size)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(scenes.prompt_of(scene))
    return folder


def clips(folder: Path, lengths: tuple[int, ...], size: tuple[int, int] = (64, 96)) -> Path:
    """Scenes as GIFs of so many frames, which grow brighter."""
    folder.mkdir(parents=True)
    for index, length in enumerate(lengths):
        drawn = scenes.draw(scenes.scene_from(index), *size)
        frames = [Image.fromarray(np.uint8(drawn * (0.5 + t / 20))) for t in range(length)]
        frames[0].save(folder / f"{index}.gif", save_all=True, append_images=frames[1:])
        (folder / f"{index}.txt").write_text(f"a clip {index}")
    return folder


def train(model: Path | str, data: Path | str, out: Path, **more: Any) -> tuple[Path, ...]:
    """Train in this process; fields of the workers are told apart by their names."""
    place = {name: more.pop(name) for name in ("workers", "local", "wait") if name in more}
    options = {n: more.pop(n) for n in ("continued", "save_every", "tell", "cancel") if n in more}
    recipe = lora_recipe.of({"model": str(model), "data": str(data), **SMALL, **more})
    return train_lora(recipe, str(out), RenderSpec(**place), **options)


def words(model: Path | str, data: Path | str, out: Path, **more: Any) -> list[str]:
    """The same as words of a command line."""
    fields = {"model": model, "data": data, "out": out, **SMALL, **more}
    size = f"{fields.pop('width')}x{fields.pop('height')}"
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in fields.items()]
    return ["train", "lora", "--size", size, *(word for pair in pairs for word in pair)]


def apart(one: Path, other: Path) -> float:
    """How far two LoRAs are apart: of each tensor the difference's length by its own, the most."""
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    pairs = ((a[name], b[name]) for name in a)
    return max(float((x - y).norm() / x.norm().clamp(min=1e-12)) for x, y in pairs)


def strayed(one: Path, other: Path) -> float:
    """How far two trainings came apart, as a share of the way that the first went.

    Of all second factors together, which begin at nothing; see `support.trainings.strayed`.
    """
    a, b = load_file(one), load_file(other)
    names = sorted(name for name in a if "lora_B" in name)
    first, second = (torch.cat([w[name].flatten() for name in names]) for w in (a, b))
    return float((first - second).norm() / first.norm())


def changes(file: Path) -> dict[str, torch.Tensor]:
    """What a file adds to weights, by layers' names without the part's."""
    factors = load_file(file)
    downs = [name for name in factors if name.endswith("lora_A.weight")]
    return {
        name.partition(".")[2].removesuffix(".lora_A.weight"): factors[
            name.replace("lora_A", "lora_B")
        ].flatten(1)
        @ factors[name].flatten(1)
        for name in downs
    }
