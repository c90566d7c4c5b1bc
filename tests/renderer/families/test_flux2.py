"""FLUX.2: klein and dev, patches of the autoencoder's cells, and text on an axis of its own.

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
from frieze.renderer.autoencoders.patch_vae import to_cells, to_patches
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.families import flux2
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import RotaryAxis, trained
from frieze.renderer.models.rotary import AngleRope
from support import denoising
from support.denoising import CPU, LEVEL, Studio, distance, latents, noise, rows_of, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT32, EXACT_FLOAT64

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CANVAS = Canvas(1, 7, 5)
CUTS = [(Band(0, 5), Band(5, 7)), (Band(0, 1), Band(1, 5), Band(5, 7))]
TEXT = {"embeds": noise(1, 9, 24, seed=2)}
TOLD = Guidance(embedded=4.0)
LAYOUTS = ["flux2", "flux2-dev"]


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Studio]:
    return {name: Studio.of(name, tmp_path_factory.mktemp(name)) for name in LAYOUTS}


@pytest.fixture
def klein(studios: dict[str, Studio]) -> Studio:
    return studios["flux2"]


def pipeline_class(studio: Studio) -> Any:
    import diffusers

    return getattr(diffusers, studio.facts.pipeline)


@pytest.mark.parametrize("name", LAYOUTS)
def test_clean_latents_are_the_stock_network_s(studios: dict[str, Studio], name: str) -> None:
    from diffusers import Flux2Transformer2DModel

    studio = studios[name]
    pipeline, x = pipeline_class(studio), latents(studio.facts, CANVAS)
    image_ids = pipeline._prepare_latent_ids(x[:, :, 0])
    velocity = studio.network(Flux2Transformer2DModel)(
        hidden_states=pipeline._pack_latents(x[:, :, 0]),
        timestep=torch.tensor([LEVEL.timestep / 1000]),
        guidance=torch.tensor([TOLD.embedded]) if name == "flux2-dev" else None,
        encoder_hidden_states=TEXT["embeds"],
        txt_ids=pipeline._prepare_text_ids(TEXT["embeds"]),
        img_ids=image_ids,
    ).sample
    unpacked = pipeline._unpack_latents_with_ids(velocity, image_ids).unsqueeze(2)
    ours = denoising.denoised(studio, TEXT, CANVAS, whole(CANVAS), TOLD)
    assert distance(ours, x - LEVEL.sigma * unpacked) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_are_denoised_as_one(
    studios: dict[str, Studio], name: str, bands: tuple[Band, ...]
) -> None:
    ours = denoising.denoised(studios[name], TEXT, CANVAS, bands, TOLD)
    expected = denoising.denoised(studios[name], TEXT, CANVAS, whole(CANVAS), TOLD)
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


def test_control_bands_without_the_mode_are_wrong(klein: Studio) -> None:
    alone = denoising.denoised_alone(klein, TEXT, CANVAS, CUTS[1])
    assert distance(alone, denoising.denoised(klein, TEXT, CANVAS, whole(CANVAS))) > CONTROL


def test_dev_is_told_its_guidance_and_klein_is_not(studios: dict[str, Studio]) -> None:
    def change(name: str) -> float:
        a, b = (
            denoising.denoised(studios[name], TEXT, CANVAS, whole(CANVAS), Guidance(embedded=scale))
            for scale in (2.0, 4.0)
        )
        return distance(a, b)

    assert change("flux2") == 0.0
    assert change("flux2-dev") > CONTROL


# ---- positions


def test_angles_are_those_of_diffusers_tables(klein: Studio) -> None:
    from diffusers.models.transformers.transformer_flux2 import Flux2PosEmbed

    pipeline, rope = pipeline_class(klein), AngleRope()
    stock = Flux2PosEmbed(2000, list(klein.model.dims))
    ids = pipeline._prepare_latent_ids(latents(klein.facts, CANVAS)[:, :, 0])[0]
    place = BandPlace(Band(0, CANVAS.height), CANVAS, trained)
    image = (rope(klein.model._angles(place, 0.5, CPU)), stock(ids))
    text_ids = pipeline._prepare_text_ids(TEXT["embeds"])[0]
    text = (rope(klein.model._text_angles((9,), CPU)), stock(text_ids))
    for ours, known in (image, text):
        for table, expected in zip(ours, known, strict=True):
            assert table.dtype == expected.dtype
            assert float((table - expected).abs().max()) <= CASTS_TO_FLOAT32


def test_a_method_stretches_rows_and_columns(klein: Studio) -> None:
    asked: list[tuple[RotaryAxis, list[float]]] = []

    def noted(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        asked.append((axis, position_S.tolist()))
        return trained(axis, position_S, sigma)

    klein.model._angles(BandPlace(Band(3, 7), CANVAS, noted), 0.5, CPU)
    axes, positions = zip(*asked, strict=True)
    assert [(axis.name, axis.theta, axis.trained, axis.length) for axis in axes] == [
        ("frame", 2000, 1, 1),
        ("row", 2000, 128, 7),
        ("column", 2000, 128, 5),
    ]
    assert list(positions) == [[0], [3, 4, 5, 6], [0, 1, 2, 3, 4]]


# ---- the autoencoder: two of its rows a latent row


def stock_vae(studio: Studio) -> Any:
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2.from_pretrained(studio.folder / "vae").double().eval()


def tailed(studio: Studio, features: Tensor) -> Tensor:
    tail = studio.model.tail
    pixels: Tensor = tail.conv(tail.activation(tail.norm(features)))
    return pixels


def test_pixels_are_those_of_the_stock_autoencoder(klein: Studio) -> None:
    x, vae, pipeline = latents(klein.facts, CANVAS), stock_vae(klein), pipeline_class(klein)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    raw = x[:, :, 0] * std + vae.bn.running_mean.view(1, -1, 1, 1)
    expected = vae.decode(pipeline._unpatchify_latents(raw)).sample
    assert distance(tailed(klein, klein.model.features(x)), expected) <= EXACT_FLOAT64


def test_a_picture_is_encoded_as_in_the_stock_pipeline(klein: Studio) -> None:
    pipeline = pipeline_class(klein).from_pretrained(
        klein.folder, transformer=None, text_encoder=None, tokenizer=None
    )
    pipeline.vae.double()
    pixels = noise(1, 3, 1, 16 * CANVAS.height, 16 * CANVAS.width).clamp(-1, 1)
    expected = pipeline._encode_vae_image(pixels[:, :, 0], None).unsqueeze(2)
    assert distance(klein.model.encoded(pixels), expected) <= EXACT_FLOAT64


@pytest.mark.parametrize("bands", CUTS, ids=len)
def test_bands_are_decoded_and_encoded_as_one(klein: Studio, bands: tuple[Band, ...]) -> None:
    model, x = klein.model, latents(klein.facts, CANVAS)
    pixels = noise(1, 3, 1, 16 * CANVAS.height, 16 * CANVAS.width).clamp(-1, 1)
    works = [
        (model.features, x, model.decoder_marks, 1),
        (model.encoded, pixels, model.encoder_marks, 16),
    ]
    for work, given, marks, scale in works:
        ours, expected = (
            denoising.on_bands(lambda rows, _: work(rows), given, CANVAS, cut, marks, scale)  # noqa: B023
            for cut in (bands, whole(CANVAS))
        )
        assert distance(ours, expected) <= EXACT_FLOAT64
        alone = [work(rows_of(given, band, scale)) for band in bands]
        assert distance(torch.cat(alone, dim=-2), expected) > CONTROL


def test_cells_and_patches_are_each_other_s_inverse(klein: Studio) -> None:
    x = noise(1, 8, 6, 4)
    assert torch.equal(to_patches(x), pipeline_class(klein)._patchify_latents(x))
    assert torch.equal(to_cells(to_patches(x)), x)


# ---- checkpoints and prompts


def test_facts_of_each_layout(studios: dict[str, Studio]) -> None:
    klein, dev = (studios[name].facts for name in LAYOUTS)
    for facts in (klein, dev):
        assert (facts.latent.channels, facts.latent.downscale, facts.latent.unit) == (32, 16, 16)
        assert (facts.training_size, facts.schedule.mu) == (2048, "flux2")
        assert facts.guidance.defaults == {"guidance_scale": 4.0}
    assert (klein.guidance.cfg, klein.guidance.embedded) == ("guidance_scale", False)
    assert (dev.guidance.cfg, dev.guidance.embedded) == (None, True)


def test_distilled_klein_has_no_second_half(klein: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "klein"
    shutil.copytree(klein.folder, folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"is_distilled": True}))
    assert describe(str(folder)).guidance.cfg is None


@pytest.mark.parametrize("name", LAYOUTS)
def test_prompts_are_encoded_as_in_the_stock_pipeline(
    studios: dict[str, Studio], name: str
) -> None:
    studio = studios[name]
    spec = denoising.spec(studio.folder, max_sequence_length=160)
    pipeline = pipeline_class(studio).from_pretrained(studio.folder, dtype=torch.float32)
    halves = flux2.encode(studio.facts, spec, CPU, 2).halves
    for half, prompt in zip(halves, ("a red sun", ""), strict=True):
        known, _ = pipeline.encode_prompt(prompt, device=CPU, max_sequence_length=160)
        assert torch.equal(half["embeds"], known)
    assert not torch.equal(halves[0]["embeds"], halves[1]["embeds"])
