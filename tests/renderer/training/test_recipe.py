"""What a training was asked for, as the command that goes on with it says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from frieze.renderer.cli.train import train
from frieze.renderer.training import recipe as recipes
from frieze.renderer.training.recipe import Recipe

# A value beside its default of each field, but for steps, which are instead of minutes.
OTHER: dict[str, Any] = {
    "model": "/a/model b",
    "data": "/a/data",
    "revision": "r",
    "variant": "fp16",
    "start": "/a/start",
    "minutes": 100 / 3,
    "batch": 3,
    "crop": 48,
    "scale": 4.123456789,
    "rate": 0.00123456789,
    "pictures": 7,
    "dtype": "bfloat16",
    "seed": 5,
    "stages": ("flow", "adversarial"),
}


@pytest.mark.parametrize("told", ["minutes", "steps"])
def test_the_command_asks_for_the_same(told: str) -> None:
    assert {*OTHER, "steps"} == set(Recipe.model_fields)
    wish = OTHER if told == "minutes" else {**OTHER, "minutes": None, "steps": 9}
    recipe = recipes.of(wish)
    words = shlex.split(recipe.command(Path("/a b"), ("--device", "cpu")))
    assert words[:3] == ["frieze", "train", "decoder"]
    given = get_command(train).commands["decoder"].make_context("decoder", words[3:]).params
    assert (given["out"], given["device"], given["continued"]) == ("/a b", "cpu", True)
    values = {name: given[name] for name in Recipe.model_fields if given[name] is not None}
    assert recipes.of(values) == recipe
    assert recipes.of(values | {"rate": 0.00123457}) != recipe  # the control
