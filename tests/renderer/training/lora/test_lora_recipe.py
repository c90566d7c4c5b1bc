"""What a training of a LoRA was asked for, as the command that goes on with it says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from frieze.renderer import SpecError
from frieze.renderer.training.lora import lora_recipe
from frieze.renderer.training.lora.lora_recipe import LoraRecipe
from frieze.renderer.training.timesteps import CosMap, LogitNormal, Mode, Uniform
from support.command_line import frieze

# A value beside its default of each field, but for minutes, which are instead of steps, and start.
OTHER: dict[str, Any] = {
    "model": "/a/model b",
    "data": "/a/data",
    "revision": "r",
    "variant": "fp16",
    "steps": 9,
    "height": 320,
    "width": 480,
    "num_frames": 5,
    "method": "yarn",
    "method_options": {"convention": "factor", "factor": 20},
    "shift": 7.5,
    "guidance_scale": 3.5,
    "max_sequence_length": 77,
    "rank": 8,
    "alpha": 4.25,
    "targets": ("to_q", "ff.net.2"),
    "ema": 0.99,
    "aspect_buckets": True,
    "caption": "a photo",
    "trigger": "sks",
    "caption_dropout": 0.25,
    "timesteps": "mode=1.29",
    "batch": 3,
    "rate": 0.00123456789,
    "pictures": 7,
    "dtype": "bfloat16",
    "checkpointing": True,
    "sample_prompt": ("one, two", "three"),
    "sample_steps": 5,
    "seed": 5,
}
GONE_ON = {n: v for n, v in OTHER.items() if n not in ("rank", "alpha", "targets")} | {
    "start": "/a/l.safetensors"
}
LEAST = {"model": "demo", "data": "scenes", "height": 64, "width": 64, "steps": 1}


@pytest.mark.parametrize("values", [OTHER, GONE_ON], ids=["new", "gone on"])
def test_the_command_asks_for_the_same(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    assert {*OTHER, *GONE_ON, "minutes"} == set(LoraRecipe.model_fields)
    wish = lora_recipe.of(values)
    words = shlex.split(wish.command(Path("/a b.safetensors"), ("--device", "cpu")))
    assert words[:3] == ["frieze", "train", "lora"]
    asked: list[Any] = []

    def taken(recipe: LoraRecipe, out: str, workers: Any, **told: Any) -> tuple[Path, ...]:
        asked.extend((recipe, out, workers.device, told["continued"]))
        return (Path(out),)

    monkeypatch.setattr("frieze.renderer.training.lora.lora_run.train_lora", taken)
    shown = frieze(*words[1:])
    assert shown.exit_code == 0, shown.stderr
    assert asked == [wish, "/a b.safetensors", "cpu", True]
    assert wish != lora_recipe.of(values | {"rate": 0.00123457})  # the control


def test_densities_of_times() -> None:
    told = ("logit-normal", "logit-normal=0.5,0.6", "mode=1.29", "cosmap", "uniform")
    found = [lora_recipe.density(text) for text in told]
    assert found == [LogitNormal(), LogitNormal(0.5, 0.6), Mode(1.29), CosMap(), Uniform()]
    u = torch.linspace(0.1, 0.9, 5)
    assert all(bool((each.quantile(u).diff() > 0).all()) for each in found)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"timesteps": "normal"}, "timesteps 'normal'; logit-normal, mode, cosmap, uniform work"),
        ({"timesteps": "mode=2"}, "scale 2 of mode; -1 to 1.7519 works"),
        ({"timesteps": "mode=1,2"}, "too many numbers; mode=1.29 works"),
        ({"timesteps": "mode=x"}, "'x' is no number; mode=1.29 works"),
        ({"timesteps": "logit-normal=nan"}, "not a finite number"),
        ({"targets": "to_q,,to_k"}, "targets: a name is empty"),
        ({"minutes": 1.0}, "minutes and steps both given; use one"),
        ({"rank": 0}, "rank = 0"),
        ({"caption_dropout": 2.0}, "caption_dropout = 2.0"),
        ({"caption": "a\0b"}, "no text in UTF-8, or with a zero byte"),
    ],
)
def test_what_no_training_can_be(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as error:
        lora_recipe.of(LEAST | wrong)
    assert told in str(error.value)
