"""Z-Image: one padding for the whole canvas, whatever its size and its bands.

Whole renders against diffusers are in test_contract.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.bands import BandMode
from frieze.cluster.comm import solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import PlanError
from frieze.renderer.families import zimage
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import RotaryAxis, trained
from frieze.renderer.models.rotary import turns
from frieze.renderer.planning.plan import plan
from support import denoising
from support.denoising import CPU, LEVEL, Studio, distance, latents, noise, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
# Image tokens and what they lack to a multiple of 32: 35 and 29, 64 and 0, 63 and 1.
CANVASES = [Canvas(1, 14, 10), Canvas(1, 16, 16), Canvas(1, 14, 18)]
CUTS = [lambda n: (Band(0, 10), Band(10, n)), lambda n: (Band(0, 2), Band(2, 10), Band(10, n))]
TEXT = {"embeds": noise(1, 9, 16, seed=2)}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio.of("zimage", tmp_path_factory.mktemp("zimage"))


def stock_network(studio: Studio) -> Any:
    from diffusers import ZImageTransformer2DModel

    return studio.network(ZImageTransformer2DModel)


@pytest.mark.parametrize("num_text", [9, 32, 40])
@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_clean_latents_are_the_stock_network_s(
    studio: Studio, canvas: Canvas, num_text: int
) -> None:
    x, embeds = latents(studio.facts, canvas), noise(1, num_text, 16, seed=3)
    time = torch.tensor([(1000 - LEVEL.timestep) / 1000])
    output = stock_network(studio)(list(x), time, list(embeds)).sample[0]
    ours = denoising.denoised(studio, {"embeds": embeds}, canvas, whole(canvas))
    assert distance(ours, x + LEVEL.sigma * output) <= EXACT_FLOAT32


@pytest.mark.parametrize("cut", CUTS, ids=["2", "3"])
@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_bands_are_denoised_as_one(studio: Studio, canvas: Canvas, cut: Any) -> None:
    ours = denoising.denoised(studio, TEXT, canvas, cut(canvas.height))
    expected = denoising.denoised(studio, TEXT, canvas, whole(canvas))
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_control_bands_without_the_mode_are_wrong(studio: Studio, canvas: Canvas) -> None:
    alone = denoising.denoised_alone(studio, TEXT, canvas, CUTS[1](canvas.height))
    assert distance(alone, denoising.denoised(studio, TEXT, canvas, whole(canvas))) > CONTROL


def test_control_the_padding_of_the_canvas_shows(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, or with that of each band, the picture would be another."""
    canvas = CANVASES[0]
    expected = denoising.denoised(studio, TEXT, canvas, whole(canvas))
    monkeypatch.setattr(zimage, "MULTIPLE", 1)
    assert distance(denoising.denoised(studio, TEXT, canvas, whole(canvas)), expected) > CONTROL


def test_every_attention_is_marked(studio: Studio) -> None:
    """With the mode on one rank each attention is counted, and one without a mark raises."""
    canvas, model = CANVASES[0], studio.model
    marks = model.denoiser_marks(LEVEL)
    assert [m.local for m in marks] == [False, True, False]
    names = [name for m in marks for name in m.names]
    attentions = [n for n, _ in model.transformer.named_modules() if n.endswith(".attention")]
    assert sorted(names) == sorted(attentions)
    with BandMode(solo(), whole(canvas), marks=marks, canvas=canvas):
        place = BandPlace(Band(0, canvas.height), canvas, trained)
        model.denoised(latents(studio.facts, canvas), LEVEL, TEXT, place, Guidance())


# ---- positions


@pytest.mark.parametrize("num_text", [9, 32, 40])
@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_angles_are_those_of_diffusers_tables(
    studio: Studio, canvas: Canvas, num_text: int
) -> None:
    network, x = stock_network(studio), latents(studio.facts, canvas)
    embeds = noise(1, num_text, 16)
    _, _, _, image_ids, text_ids, _, _ = network.patchify_and_embed(list(x), list(embeds), 2, 1)
    ours: list[Tensor] = []
    model = studio.model
    model.transformer.rope_embedder = lambda angles: _kept(ours, turns(angles))
    try:
        denoising.denoised(studio, {"embeds": embeds}, canvas, whole(canvas))
    finally:
        model.transformer.rope_embedder = turns
    for table, ids in zip(ours, (image_ids[0], text_ids[0]), strict=True):
        known = network.rope_embedder(ids)[: len(table)]  # text ids go on past the text
        assert table.shape == known.shape
        assert float((table - known).abs().max()) <= CASTS_TO_FLOAT32


def _kept(seen: list[Tensor], table: Tensor) -> Tensor:
    seen.append(table)
    return table


def test_a_method_stretches_rows_and_columns(studio: Studio) -> None:
    asked: list[tuple[RotaryAxis, list[float]]] = []

    def noted(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        assert sigma == LEVEL.sigma
        asked.append((axis, position_S.tolist()))
        return trained(axis, position_S, sigma)

    canvas, x = CANVASES[0], latents(studio.facts, CANVASES[0])
    place = BandPlace(Band(4, 14), canvas, noted)
    studio.model.denoised(x[..., 4:, :], LEVEL, TEXT, place, Guidance())
    axes, positions = zip(*asked[:3], strict=True)
    assert [(axis.name, axis.trained, axis.length) for axis in axes] == [
        ("frame", 1, 1),
        ("row", 128, 7),
        ("column", 128, 5),
    ]
    assert list(positions) == [[33], [2, 3, 4, 5, 6], [0, 1, 2, 3, 4]]


# ---- guidance, checkpoints and prompts


def test_a_scale_counts_from_0_as_in_the_stock_pipeline(studio: Studio) -> None:
    def guidance(**fields: Any) -> Guidance:
        return plan(denoising.spec(studio.folder, **fields)).guidance

    assert guidance().scale == 6.0
    assert guidance(guidance_scale=4.0, negative_prompt="grey").scale == 5.0
    assert guidance(guidance_scale=0.5).scale == 1.5
    assert guidance(guidance_scale=0.0).num_halves == 1
    with pytest.raises(PlanError, match="raise guidance_scale above 0"):
        guidance(guidance_scale=0.0, negative_prompt="grey")
    x, positive, negative = (latents(studio.facts, CANVASES[0], seed=seed) for seed in (1, 2, 3))
    ours = studio.model.guided(x, LEVEL, positive, negative, guidance(guidance_scale=4.0))
    assert distance(ours, positive + 4.0 * (positive - negative)) <= CASTS_TO_FLOAT32


def test_facts(studio: Studio) -> None:
    facts = studio.facts
    assert (facts.latent.channels, facts.latent.downscale, facts.latent.unit) == (16, 8, 16)
    assert (facts.training_size, facts.max_sequence_length) == (2048, 512)
    assert facts.float32_noise
    assert facts.cost.num_layers == 4


def test_prompts_are_encoded_as_in_the_stock_pipeline(studio: Studio) -> None:
    from diffusers import ZImagePipeline

    spec = denoising.spec(studio.folder, negative_prompt="grey", max_sequence_length=64)
    pipeline = ZImagePipeline.from_pretrained(studio.folder, dtype=torch.float32)
    positive, negative = pipeline.encode_prompt(
        "a red sun", device=CPU, negative_prompt="grey", max_sequence_length=64
    )
    halves = zimage.encode(studio.facts, spec, CPU, 2).halves
    for half, known in zip(halves, (positive[0], negative[0]), strict=True):
        assert torch.equal(half["embeds"][0], known)
    assert halves[0]["embeds"].shape != halves[1]["embeds"].shape
