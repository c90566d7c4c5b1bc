"""ControlNets, decoders and data of trainings for `fuzzing`: what belongs to a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from checkpoints.controlnet import build_controlnet
from contracts.export import picture
from frieze.renderer.autoencoders import infgen
from frieze.renderer.checkpoints import controlnet, decoder
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.facts import ModelFacts
from frieze.renderer.training.lora import lora_recipe
from frieze.renderer.training.lora.captioned_folder import data_of
from frieze.renderer.training.lora.lora_recipe import LoraRecipe
from support.decoders import saved
from support.fuzz_models import changes_of, originals
from support.fuzz_values import changes, seldom, texts, values
from support.media_files import whole
from support.shared import kept


@kept
def networks(folder: Path) -> dict[str, tuple[Path, ModelFacts]]:
    """A ControlNet and a decoder, and the models that they are for."""
    unet, demo = describe(str(originals(folder)["sd15"])), describe("demo")
    return {
        "controlnet": (build_controlnet(Path(unet.folder), folder / "controlnet"), unet),
        "decoder": (saved(folder / "decoder"), demo),
    }


def configs(folder: Path) -> SearchStrategy[tuple[str, Any]]:
    """Which of them, and its config."""

    def of(name: str) -> SearchStrategy[tuple[str, Any]]:
        made, _ = networks(folder)[name]
        return st.tuples(st.just(name), changes_of(made / "config.json"))

    return st.sampled_from(["controlnet", "decoder"]).flatmap(of)


def on_config(folder: Path) -> Callable[[tuple[str, Any]], object]:
    """Check it as a plan does, and load it."""

    def act(example: tuple[str, Any]) -> object:
        name, config = example
        made, facts = networks(folder)[name]
        own = folder / f"{name}-changed"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(made, own)
        text = config if isinstance(config, str) else json.dumps(config)
        (own / "config.json").write_text(text, "utf-8", "surrogatepass")
        if name == "controlnet":
            return controlnet.check_folder(str(own), facts)
        found = decoder.describe(str(own), facts)
        return infgen.load(found, torch.float32, torch.device("cpu"))

    return act


def trainings() -> SearchStrategy[tuple[dict[str, Any], dict[str, bytes]]]:
    """Fields of a recipe, and the files of its folder."""
    rows = st.dictionaries(
        seldom(texts(), st.sampled_from(["file_name", "text", "caption", "prompt"])),
        seldom(values(), st.one_of(texts(), st.sampled_from(["0.png", "1.gif", "a sun"]))),
        max_size=3,
    )
    good = st.just([{"file_name": "0.png", "text": "a sun"}])
    lines = st.one_of(good, st.lists(rows, max_size=3)).map(
        lambda found: "\n".join(map(json.dumps, found)).encode("utf-8", "surrogatepass")
    )
    text = st.one_of(
        texts().map(lambda t: t.encode("utf-8", "surrogatepass")), st.binary(max_size=20)
    )
    pixels = st.sampled_from(["png", "palette.png", "gif", "cmyk.jpeg", "fax.tif"]).map(whole)
    files = st.fixed_dictionaries(
        {},
        optional={
            "metadata.jsonl": seldom(st.binary(max_size=40), lines),
            "metadata.csv": st.one_of(text, st.just(b"file_name,text\n0.png,a sun\n")),
            "0.txt": seldom(text, st.just(b"a sun")),
            "1.caption": text,
            "1.gif": seldom(text, pixels),
            "2.png": st.one_of(text, pixels),
        },
    )
    odd = changes(LoraRecipe, method_options=st.just({}))
    return st.tuples(seldom(odd, st.just({})), files)


def on_training(folder: Path) -> Callable[[tuple[dict[str, Any], dict[str, bytes]]], object]:
    """The recipe, and its data as it is looked at before any work."""

    def act(example: tuple[dict[str, Any], dict[str, bytes]]) -> object:
        fields, files = example
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        Image.fromarray(picture(64, 96)).save(data / "0.png")
        for name, content in files.items():
            (data / name).write_bytes(content)
        base = {"model": "demo", "data": str(data), "height": 64, "width": 64, "steps": 1}
        recipe = lora_recipe.of({**base, "caption": "a sun", **fields})
        _ = recipe.spec
        found = data_of(recipe, describe("demo"))
        return found.identity

    return act
