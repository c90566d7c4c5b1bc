"""Stable Diffusion 3 and 3.5: positions of a band, and encoders that are not there.

Whole renders against diffusers are in test_contract.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.bands import BandMode
from frieze.cluster.comm import solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.families import sd3
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import trained
from support import denoising
from support.denoising import CPU, LEVEL, Studio, distance, latents, noise, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
LAYOUTS = ["sd3", "sd35"]
# Within the table of 24 x 24 patches, of odd and even size, and beyond it on either side.
CANVASES = [Canvas(1, 14, 10), Canvas(1, 14, 60), Canvas(1, 58, 8)]
CUTS = [lambda n: (Band(0, 10), Band(10, n)), lambda n: (Band(0, 2), Band(2, 8), Band(8, n))]
TEXT = {"embeds": noise(1, 9, 32, seed=2), "pooled": noise(1, 32, seed=3)}


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Studio]:
    return {name: Studio.of(name, tmp_path_factory.mktemp(name)) for name in LAYOUTS}


def stock_x0(studio: Studio, canvas: Canvas) -> Tensor:
    from diffusers import SD3Transformer2DModel

    x = latents(studio.facts, canvas)
    velocity = studio.network(SD3Transformer2DModel)(
        hidden_states=x[:, :, 0],
        timestep=torch.tensor([LEVEL.timestep]),
        encoder_hidden_states=TEXT["embeds"],
        pooled_projections=TEXT["pooled"],
    ).sample
    return x - LEVEL.sigma * velocity.unsqueeze(2)


@pytest.mark.parametrize("canvas", [Canvas(1, 14, 10), Canvas(1, 48, 6)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_clean_latents_are_the_stock_network_s(
    studios: dict[str, Studio], name: str, canvas: Canvas
) -> None:
    ours = denoising.denoised(studios[name], TEXT, canvas, whole(canvas))
    assert distance(ours, stock_x0(studios[name], canvas)) <= EXACT_FLOAT32


@pytest.mark.parametrize("cut", CUTS, ids=["2", "3"])
@pytest.mark.parametrize("canvas", CANVASES, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_are_denoised_as_one(
    studios: dict[str, Studio], name: str, canvas: Canvas, cut: Any
) -> None:
    ours = denoising.denoised(studios[name], TEXT, canvas, cut(canvas.height))
    expected = denoising.denoised(studios[name], TEXT, canvas, whole(canvas))
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("name", LAYOUTS)
def test_control_bands_without_the_mode_are_wrong(studios: dict[str, Studio], name: str) -> None:
    canvas = CANVASES[0]
    alone = denoising.denoised_alone(studios[name], TEXT, canvas, CUTS[1](canvas.height))
    expected = denoising.denoised(studios[name], TEXT, canvas, whole(canvas))
    assert distance(alone, expected) > CONTROL


def test_control_a_band_with_the_crop_of_its_own_size_is_wrong(studios: dict[str, Studio]) -> None:
    from diffusers.models.embeddings import PatchEmbed

    studio, canvas = studios["sd3"], CANVASES[0]
    embed = studio.model.transformer.pos_embed
    expected = denoising.denoised(studio, TEXT, canvas, whole(canvas))
    ours = embed.cropped_pos_embed
    embed.cropped_pos_embed = lambda *size: PatchEmbed.cropped_pos_embed(embed, *size)
    try:
        cropped = denoising.denoised(studio, TEXT, canvas, CUTS[0](canvas.height))
    finally:
        embed.cropped_pos_embed = ours
    assert distance(cropped, expected) > CONTROL


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_attention_is_marked(studios: dict[str, Studio], name: str) -> None:
    studio, canvas = studios[name], CANVASES[0]
    model, marks = studio.model, studio.model.denoiser_marks(LEVEL)
    marked = sorted(name for m in marks for name in m.names)
    attentions = (".attn", ".attn2")
    assert marked == sorted(
        n for n, _ in model.transformer.named_modules() if n.endswith(attentions)
    )
    assert len(marked) == (3 if name == "sd35" else 2)
    with BandMode(solo(), whole(canvas), marks=marks, canvas=canvas):
        place = BandPlace(Band(0, canvas.height), canvas, trained)
        model.denoised(latents(studio.facts, canvas), LEVEL, TEXT, place, Guidance())


# ---- prompts


def encoded_by_diffusers(folder: Path, length: int, **absent: None) -> Any:
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, **absent)
    embeds, negative, pooled, negative_pooled = pipeline.encode_prompt(
        "a red sun", None, None, device=CPU, negative_prompt="grey", max_sequence_length=length
    )
    return {"embeds": embeds, "pooled": pooled}, {"embeds": negative, "pooled": negative_pooled}


def same(ours: Any, known: Any) -> bool:
    assert [half.keys() for half in ours] == [half.keys() for half in known]
    pairs = [(a[key], b[key]) for a, b in zip(ours, known, strict=True) for key in a]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("asked", "length"), [(None, 256), (48, 48)])
def test_prompts_are_encoded_as_in_the_stock_pipeline(
    studios: dict[str, Studio], asked: int | None, length: int
) -> None:
    studio = studios["sd3"]
    spec = denoising.spec(studio.folder, negative_prompt="grey", max_sequence_length=asked)
    halves = sd3.encode(studio.facts, spec, CPU, 2).halves
    assert same(halves, encoded_by_diffusers(studio.folder, length))
    shapes = sd3.text_shapes(studio.facts, spec)
    assert {key: tuple(x.shape) for key, x in halves[0].items()} == shapes


def test_without_its_folder_t5_is_left_out(studios: dict[str, Studio], tmp_path: Path) -> None:
    whole_folder, folder = studios["sd3"].folder, tmp_path / "small"
    shutil.copytree(
        whole_folder, folder, ignore=lambda _, names: {"text_encoder_3", "tokenizer_3"} & {*names}
    )
    facts = describe(str(folder))
    assert "text_encoder_3" not in facts.cost.weight_bytes
    assert "text_encoder_3" in studios["sd3"].facts.cost.weight_bytes
    spec = denoising.spec(folder, negative_prompt="grey", max_sequence_length=48)
    halves = sd3.encode(facts, spec, CPU, 2).halves
    absent = {"text_encoder_3": None, "tokenizer_3": None}
    known = encoded_by_diffusers(whole_folder, 48, **absent)
    assert same(halves, known)
    assert not halves[0]["embeds"][:, 77:].any()
    assert not same(halves, encoded_by_diffusers(whole_folder, 48))


def test_facts(studios: dict[str, Studio]) -> None:
    facts = studios["sd35"].facts
    assert (facts.latent.channels, facts.latent.downscale, facts.latent.patch) == (16, 8, 2)
    assert (facts.training_size, facts.max_sequence_length) == (128, 512)
    assert (facts.guidance.cfg, facts.guidance.defaults) == (
        "guidance_scale",
        {"guidance_scale": 7.0},
    )
