"""What a training needs is counted before any work, and what does not fit is refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import configs_full
from frieze.kernels.live_bytes import LiveBytes
from frieze.renderer.checkpoints.checkpoint import load_family
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.units import GIB
from frieze.renderer.training.lora import lora_adapter, lora_memory, lora_recipe
from frieze.renderer.training.lora.method_denoiser import MethodDenoiser
from support.command_line import frieze
from support.lora_trainings import SMALL, pictures, tiny_flux, words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLOSE = 0.15


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("flux") / "model")


@pytest.fixture(scope="module")
def recipe(flux: Path) -> lora_recipe.LoraRecipe:
    sizes = {"height": 256, "width": 256, "method": "none"}
    return lora_recipe.of({"model": str(flux), "data": "scenes"} | SMALL | sizes)


def test_a_step_holds_what_was_counted(recipe: lora_recipe.LoraRecipe) -> None:
    made = plan(recipe.spec.model_copy(update={"device": "cpu"}))
    told = lora_memory.needed(recipe, made)
    model = load_family("flux").load(made.facts, made.spec, torch.device("cpu"))
    (network,) = lora_adapter.denoisers(model)
    lora_adapter.add(network, rank=2, alpha=2.0, targets=recipe.targets, seed=0)
    denoiser = MethodDenoiser(made, model)
    shapes = load_family("flux").text_shapes(made.facts, made.spec)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    level = denoiser.stage.levels[0]
    with LiveBytes() as live:
        x, noise = torch.zeros(denoiser.shape), torch.zeros(denoiser.shape)
        denoiser.learn(x, noise, level, tensors, weight=1.0, embedded=0.0)
    assert told.activations == pytest.approx(live.peak.num_bytes, rel=CLOSE)
    factors = sum(factor.numel() for factor in lora_adapter.factors(network))
    assert told.factors == 16 * factors


@pytest.mark.slow  # a network of full size
def test_checkpointing_keeps_one_block_of_many(tmp_path: Path) -> None:
    model = str(configs_full.build("flux1", tmp_path))
    sizes = {"height": 1024, "width": 1024, "method": "none", "dtype": "bfloat16"}
    recipe = lora_recipe.of({"model": model, "data": "scenes"} | SMALL | sizes)
    made = plan(recipe.spec.model_copy(update={"device": "cuda", "device_memory": 1e5}))
    full = lora_memory.needed(recipe, made)
    less = lora_memory.needed(recipe.model_copy(update={"checkpointing": True}), made)
    assert less.weights == full.weights
    assert less.activations < full.activations / 5
    assert full.bytes_per_device > 48e9  # what no card of 48 GB holds
    assert less.bytes_per_device < 30e9


def test_what_does_not_fit_is_refused_with_what_would_do(
    tmp_path: Path, flux: Path, recipe: lora_recipe.LoraRecipe
) -> None:
    data, out = pictures(tmp_path / "data", 1, (256, 256)), tmp_path / "out"
    cases = [(1e-6, "use a smaller --size, or larger devices")]
    made = plan(recipe.spec.model_copy(update={"device": "cpu"}))
    full = lora_memory.needed(recipe, made).bytes_per_device
    less = recipe.model_copy(update={"dtype": "bfloat16"})
    half_made = plan(less.spec.model_copy(update={"device": "cpu"}))
    half = lora_memory.needed(less, half_made).bytes_per_device
    # Processors without bfloat16 of their own convolve in copies of float32, and need more with it.
    if half < full:
        cases.append(((full + half) / 2 / GIB / 0.95, "--dtype bfloat16 would do"))
    for memory, works in cases:
        told = {"height": 256, "width": 256, "method": "none", "device_memory": memory}
        shown = frieze(*words(flux, data, out, **told))
        assert (shown.exit_code, shown.stdout) == (2, ""), shown.stderr
        (line,) = shown.stderr.splitlines()
        assert "a training at 256x256 does not fit: it needs" in line
        assert works in line
        assert not out.exists()
