"""Qwen-Image: centred positions, guidance of equal length, and bands, against diffusers' own parts.

Whole renders against diffusers are in test_contract.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.layout import Band, Canvas
from frieze.renderer import ModelError
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.families import qwen
from frieze.renderer.models import rotary
from frieze.renderer.models.family import BandPlace, Guidance, linear_guided
from frieze.renderer.models.positions import RotaryAxis, trained
from support import denoising
from support.denoising import CPU, LEVEL, Studio, distance, latents, noise, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CANVAS = Canvas(1, 14, 10)
CUTS = [(Band(0, 10), Band(10, 14)), (Band(0, 2), Band(2, 10), Band(10, 14))]
TEXT = {"embeds": noise(1, 9, 16, seed=2)}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio.of("qwen", tmp_path_factory.mktemp("qwen"))


def test_clean_latents_are_the_stock_network_s(studio: Studio) -> None:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    x = latents(studio.facts, CANVAS)
    size = (CANVAS.height, CANVAS.width)
    velocity = studio.network(QwenImageTransformer2DModel)(
        hidden_states=QwenImagePipeline._pack_latents(x, 1, 16, *size),
        timestep=torch.tensor([LEVEL.timestep / 1000]),
        encoder_hidden_states=TEXT["embeds"],
        img_shapes=[[(1, CANVAS.height // 2, CANVAS.width // 2)]],
    ).sample
    unpacked = QwenImagePipeline._unpack_latents(velocity, *(8 * side for side in size), 8)
    ours = denoising.denoised(studio, TEXT, CANVAS, whole(CANVAS))
    assert distance(ours, x - LEVEL.sigma * unpacked) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
def test_bands_are_denoised_as_one(studio: Studio, bands: tuple[Band, ...]) -> None:
    ours = denoising.denoised(studio, TEXT, CANVAS, bands)
    expected = denoising.denoised(studio, TEXT, CANVAS, whole(CANVAS))
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


def test_control_bands_without_the_mode_are_wrong(studio: Studio) -> None:
    alone = denoising.denoised_alone(studio, TEXT, CANVAS, CUTS[1])
    assert distance(alone, denoising.denoised(studio, TEXT, CANVAS, whole(CANVAS))) > CONTROL


# ---- positions


@pytest.mark.parametrize(("rows", "columns"), [(7, 5), (5, 8), (6, 6), (1, 3)])
def test_angles_are_those_of_diffusers_tables(studio: Studio, rows: int, columns: int) -> None:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    canvas = Canvas(1, 2 * rows, 2 * columns)
    place = BandPlace(Band(0, canvas.height), canvas, trained)
    dims = studio.model.dims
    stock = QwenEmbedRope(10000, list(dims), scale_rope=True)
    expected = stock([(1, rows, columns)], max_txt_seq_len=9, device=CPU)
    ours = rotary.TurnRope()(studio.model.angles(place, (9,), 0.5, CPU))
    for table, known in zip(ours, expected, strict=True):
        assert table.dtype == torch.complex64
        assert float((table - known).abs().max()) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
def test_bands_have_their_rows_of_the_canvas_angles(
    studio: Studio, bands: tuple[Band, ...]
) -> None:
    def angles(band: Band) -> tuple[Tensor, Tensor]:
        return studio.model.angles(BandPlace(band, CANVAS, trained), (9,), 0.5, CPU)

    image, text = angles(Band(0, CANVAS.height))
    assert torch.equal(torch.cat([angles(band)[0] for band in bands]), image)
    assert all(torch.equal(angles(band)[1], text) for band in bands)


def test_a_method_stretches_each_axis_around_its_middle(studio: Studio) -> None:
    asked: list[tuple[RotaryAxis, list[float]]] = []

    def halved(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        asked.append((axis, position_S.tolist()))
        return trained(axis, position_S, sigma) / 2

    model, band = studio.model, Band(4, 14)
    plain = model.angles(BandPlace(band, CANVAS, trained), (2,), 0.5, CPU)
    ours = model.angles(BandPlace(band, CANVAS, halved), (2,), 0.5, CPU)
    assert all(torch.equal(2 * a, b) for a, b in zip(ours, plain, strict=True))
    assert [axis.name for axis, _ in asked] == ["frame", "row", "column"] * 2
    assert [axis.length for axis, _ in asked[:3]] == [1, 7, 5]
    assert [axis.trained for axis, _ in asked[:3]] == [1, 83, 83]
    assert [p for _, p in asked[:3]] == [[0], [-2, -1, 0, 1, 2], [-3, -2, -1, 0, 1]]
    assert [p for _, p in asked[3:]] == [[3, 4]] * 3


# ---- guidance


def test_guidance_keeps_the_length_of_each_token_s_velocity(studio: Studio) -> None:
    from diffusers import QwenImagePipeline

    x, positive, negative = (latents(studio.facts, CANVAS, seed=seed) for seed in (1, 2, 3))

    def packed(x0: Tensor) -> Tensor:
        velocity = (x - x0) / LEVEL.sigma
        return QwenImagePipeline._pack_latents(velocity, 1, 16, CANVAS.height, CANVAS.width)

    ours = studio.model.guided(x, LEVEL, positive, negative, Guidance(4.0))
    linear = linear_guided(positive, negative, 4.0)
    known, combined = packed(positive).norm(dim=-1, keepdim=True), packed(linear)
    expected = combined * known / combined.norm(dim=-1, keepdim=True)
    assert distance(packed(ours), expected) <= CASTS_TO_FLOAT32
    assert distance(packed(linear), expected) > CONTROL


def test_guidance_of_a_band_is_that_of_the_canvas(studio: Studio) -> None:
    halves = [latents(studio.facts, CANVAS, seed=seed) for seed in (1, 2, 3)]
    expected = studio.model.guided(halves[0], LEVEL, *halves[1:], Guidance(4.0))
    x, *clean = (half[..., 2:10, :] for half in halves)
    ours = studio.model.guided(x, LEVEL, *clean, Guidance(4.0))
    assert distance(ours, expected[..., 2:10, :]) <= CASTS_TO_FLOAT32


# ---- checkpoints and prompts


def test_facts(studio: Studio) -> None:
    facts = studio.facts
    assert (facts.latent.channels, facts.latent.downscale, facts.latent.unit) == (16, 8, 16)
    assert (facts.training_size, facts.max_sequence_length) == (1328, 512)
    assert (facts.guidance.cfg, facts.guidance.defaults) == (
        "true_cfg_scale",
        {"true_cfg_scale": 4.0},
    )


@pytest.mark.parametrize("option", qwen.FOREIGN)
def test_networks_for_other_tasks_are_refused(studio: Studio, tmp_path: Path, option: str) -> None:
    folder = tmp_path / "qwen"
    shutil.copytree(studio.folder, folder)
    config = folder / "transformer" / "config.json"
    values: dict[str, Any] = json.loads(config.read_text()) | {option: True}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=option):
        describe(str(folder))


def test_prompts_are_encoded_as_in_the_stock_pipeline(studio: Studio) -> None:
    from diffusers import QwenImagePipeline

    spec = denoising.spec(studio.folder, negative_prompt="grey", max_sequence_length=16)
    pipeline = QwenImagePipeline.from_pretrained(studio.folder, dtype=torch.float32)
    halves = qwen.encode(studio.facts, spec, CPU, 2).halves
    for half, prompt in zip(halves, ("a red sun", "grey"), strict=True):
        known, mask = pipeline.encode_prompt(prompt, device=CPU, max_sequence_length=16)
        assert mask is None
        assert torch.equal(half["embeds"], known)
    assert halves[0]["embeds"].shape != halves[1]["embeds"].shape
