"""What a checkpoint's files lack, or hold in another shape, is told from their headers alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import NAMES, build
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.cli.render import print_plan
from frieze.renderer.errors import ModelError
from frieze.renderer.models import loading
from frieze.renderer.planning import flop_trace, weight_names
from support.command_line import frieze, refused
from support.shared import Once

FEW = ["flux", "qwen", "wan-i2v"]
slow = pytest.mark.slow
Asked = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A tiny checkpoint by its name, built once."""
    once = Once()
    return lambda name: once(name, lambda: build(name, tmp_path_factory.mktemp(name) / "model"))


def checked(folder: Path) -> tuple[str, ...]:
    return weight_names.check(describe(str(folder)), RenderSpec(model=str(folder)))


def parts_of(folder: Path) -> list[str]:
    return sorted({file.parent.name for file in folder.glob("*/*.safetensors")})


def spoilt(folder: Path, to: Path, part: str, change: Callable[[dict[str, Any]], str]) -> str:
    """Makes a copy of which a part's weights were changed; returns the name of one that was."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, copy_function=lambda a, b: Path(b).symlink_to(a))
    file = next((to / part).glob("*.safetensors"))
    weights = load_file(file)
    name = change(weights)
    file.unlink()
    save_file(weights, file, {"format": "pt"})
    return name


def without_last(weights: dict[str, Any]) -> str:
    name = sorted(weights)[-1]
    del weights[name]
    return name


def widened(weights: dict[str, Any]) -> str:
    name = next(name for name in sorted(weights, reverse=True) if weights[name].ndim > 1)
    weights[name] = torch.cat([weights[name]] * 2)
    return name


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) for n in NAMES if n not in FEW] + FEW)
def test_every_part_that_lacks_a_weight_or_has_a_wider_one_is_named(
    folders: Asked, tmp_path: Path, name: str
) -> None:
    folder = folders(name)
    assert checked(folder) == ()  # the control
    for part in parts_of(folder):
        spoilt(folder, tmp_path / "less", part, without_last)
        with pytest.raises(ModelError, match=rf"less/{part} lacks \d weights, .* first"):
            checked(tmp_path / "less")
        spoilt(folder, tmp_path / "wide", part, widened)
        with pytest.raises(ModelError, match=rf"wide/{part}: .* is \[.*config\.json \["):
            checked(tmp_path / "wide")


def test_a_plan_compares_weights_before_it_counts(
    folders: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(*_: Any, **__: Any) -> None:
        raise AssertionError("counted")

    whole, less = folders("flux"), tmp_path / "less"
    monkeypatch.setattr(flop_trace, "cost", count)
    spoilt(whole, less, "text_encoder", without_last)
    for folder, error in ((less, ModelError), (whole, AssertionError)):
        with pytest.raises(error, match=r"lacks 1 weights|counted"):
            print_plan(RenderSpec(prompt="x", model=str(folder)), json=False, is_costed=True)


def test_layers_that_no_config_asks_for_are_told(folders: Asked, tmp_path: Path) -> None:
    def with_one_more(weights: dict[str, Any]) -> str:
        more = {re.sub(r"(blocks|layers)\.0\.", r"\1.7.", k): v.clone() for k, v in weights.items()}
        weights |= more
        return ""

    for part in ("transformer", "text_encoder"):
        spoilt(folders("flux"), tmp_path / part, part, with_one_more)
        (told,) = checked(tmp_path / part)
        assert re.search(rf"{part} has \d+ weights more than its config\.json has layers for", told)
        assert re.search(r"(blocks|layers)\.7\.\S+ first; they are left out", told)


def test_weights_of_other_networks_and_old_names_are_nobodys_business(
    folders: Asked, tmp_path: Path
) -> None:
    def old(weights: dict[str, Any]) -> str:
        for key in [k for k in weights if ".mid_block.attentions.0." in k]:
            for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
                if f".{new}." in key:
                    weights[key.replace(f".{new}.", f".{name}.")] = weights.pop(key)
        weights["loss.logvar"] = next(iter(weights.values())).clone()
        return ""

    spoilt(folders("sd15"), tmp_path / "a", "vae", old)
    assert checked(tmp_path / "a") == ()
    loading.component(_vae(), describe(str(tmp_path / "a")), "vae", RenderSpec())


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL


def test_a_head_that_makes_words_is_not_needed(folders: Asked, tmp_path: Path) -> None:
    def headless(weights: dict[str, Any]) -> str:
        del weights["lm_head.weight"]
        return ""

    spoilt(folders("qwen"), tmp_path / "a", "text_encoder", headless)
    assert checked(tmp_path / "a") == ()


def test_shards_are_read_by_their_index_and_one_that_is_gone_is_named(
    folders: Asked, tmp_path: Path
) -> None:
    from diffusers import FluxTransformer2DModel

    model = Path(shutil.copytree(folders("flux"), tmp_path / "model"))
    network = FluxTransformer2DModel.from_pretrained(model / "transformer")
    shutil.rmtree(model / "transformer")
    network.save_pretrained(model / "transformer", max_shard_size="50KB")
    shards = sorted((model / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    assert checked(model) == ()
    shards[-1].unlink()
    with pytest.raises(ModelError, match=rf"{shards[-1].name} is missing, which .*index\.json"):
        checked(model)


def test_it_is_one_line_before_any_work(folders: Asked, tmp_path: Path) -> None:
    spoilt(folders("flux"), tmp_path / "model", "text_encoder_2", without_last)
    words = ("a sun", "--size", "64x64", "--local", "--model", str(tmp_path / "model"))
    words = (*words, "--out", str(tmp_path / "a.zarr"))
    says = "model/text_encoder_2 lacks 2 weights"
    refused(frieze("render", *words, "--quiet"), says)
    counted = frieze("plan", *words, "--json")
    assert counted.exit_code == 2
    assert says in counted.output
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
