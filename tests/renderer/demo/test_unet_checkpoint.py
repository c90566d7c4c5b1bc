"""The shipped UNet loads in stock diffusers, draws what the prompt says, and duplicates at 2x."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from frieze.renderer import RenderSpec, render
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.demo import oracle, scenes, train
from frieze.renderer.extrapolation import convolutions
from frieze.renderer.store.store import Store

FOLDER, SIDE, STEPS = SHIPPED["demo-unet"], 128, 15
PROMPTS = [
    "a red sun over blue mountains at dusk",
    "a yellow sun over green mountains at day",
    "a white moon over purple mountains at night",
    "a pink sun over brown mountains at dawn",
]


# What diffusers' Euler scheduler asks of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def drawn(out: Path, steps: int = STEPS, **given: object) -> np.ndarray:
    """A picture that Frieze draws with the UNet."""
    spec = {"model": "demo-unet", "num_inference_steps": steps, "dtype": "float32", "local": True}
    render(RenderSpec(**spec | given, out=str(out)))
    return np.concatenate([rows for _, rows in Store.open(str(out)).in_order()])


def test_pictures_show_what_the_prompt_says(pipeline: StableDiffusionPipeline):
    drawn = [train.draw_unet(pipeline, PROMPTS, STEPS, seed) for seed in (1, 2)]
    verdicts = [oracle.judge(picture) for picture in np.concatenate(drawn)]
    right = [oracle.agrees(*pair) for pair in zip(verdicts, PROMPTS * 2, strict=True)]
    assert [verdict.suns for verdict in verdicts].count(1) >= 6
    assert sum(right) >= 4
    swapped = [oracle.agrees(*pair) for pair in zip(verdicts, PROMPTS[::-1] * 2, strict=True)]
    assert sum(swapped) == 0


def test_frieze_draws_the_picture_of_diffusers(pipeline: StableDiffusionPipeline, tmp_path: Path):
    theirs = pipeline(
        PROMPTS[0],
        height=SIDE,
        width=SIDE,
        num_inference_steps=5,
        guidance_scale=train.GUIDANCE,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    wish = {"steps": 5, "prompt": PROMPTS[0], "height": SIDE, "width": SIDE}
    ours = drawn(tmp_path / "one.zarr", **wish, seed=3)
    assert np.abs(ours - theirs * 255).max() <= 1
    other = drawn(tmp_path / "two.zarr", **wish, seed=4)
    assert np.abs(other - theirs * 255).max() > 20


@pytest.mark.slow
def test_at_twice_the_side_it_duplicates_and_a_cascade_does_not(tmp_path: Path):
    stages = ({"scale": 0.5, "start": 1.0}, {"scale": 1.0, "start": 0.5})
    suns: dict[str, list[int]] = {"direct": [], "cascade": []}
    for seed in range(8):
        for name, given in (("direct", ({"scale": 1.0, "start": 1.0},)), ("cascade", stages)):
            picture = drawn(
                tmp_path / f"{name}-{seed}.zarr",
                prompt=scenes.prompt_of(scenes.scene_from(seed)),
                seed=seed,
                height=2 * SIDE,
                width=2 * SIDE,
                stages=given,
            )
            suns[name].append(oracle.judge(picture).suns)
    assert suns["direct"].count(1) <= 2, suns
    assert np.mean(suns["direct"]) >= 2, suns
    assert suns["cascade"].count(1) >= 5, suns
    assert max(suns["cascade"]) <= 2, suns


def test_it_has_the_layers_that_methods_name(pipeline: StableDiffusionPipeline):
    layers = {name for name, _ in pipeline.unet.named_modules()}
    named = convolutions.raunet("sdxl", convolutions.Schedule((0, 1), (0, 1)), 0)
    pools = {name for pool in named.pools for name in (pool.after, pool.until)}
    assert {*named.convs, *pools, *convolutions.dilated_layers("sdxl")} <= layers


def test_the_folder_is_small_safe_and_says_how_it_was_trained():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    pickles = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
    assert not [path for path in files if path.suffix in pickles]
    hints = json.loads((FOLDER / "frieze.json").read_text())
    assert hints == {"training_size": SIDE, "guidance_scale": train.GUIDANCE}
    facts = describe("demo-unet")
    assert facts.training_size == SIDE
    assert facts.guidance.defaults == {"guidance_scale": train.GUIDANCE}


@pytest.mark.parametrize("part", ["text_encoder/model", "vae/diffusion_pytorch_model"])
def test_its_other_parts_are_those_of_the_demo(part: str):
    ours, theirs = (Path(folder, f"{part}.safetensors") for folder in (FOLDER, SHIPPED["demo"]))
    assert ours.read_bytes() == theirs.read_bytes()
