"""Wan's networks: both experts, on any bands, against the stock pipelines' own.

What every family must hold to, whole renders against diffusers included, is in test_contract.py;
first frames, prompts and checkpoints are in test_wan_inputs.py.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from frieze.cluster.bands import BandError
from frieze.cluster.layout import Band
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import RotaryAxis, trained
from frieze.renderer.sampling.noise_levels import NoiseLevel
from support.wan_parts import (
    CANVAS,
    CUTS,
    HIGH,
    LOW,
    WHOLE,
    Models,
    distance,
    latents,
    on_bands,
    rows_of,
    tensors,
)
from tolerances import CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("wan"))


def denoised(models: Models, name: str, level: NoiseLevel, bands: Sequence[Band]) -> Tensor:
    model, given = models.model(name), tensors(name)

    def work(x: Tensor, place: BandPlace) -> Tensor:
        return model.denoised(x, level, rows_of(given, place.band), place, Guidance(5.0))

    return on_bands(work, latents(), bands, model.denoiser_marks(level))


def stock_x0(models: Models, name: str, level: NoiseLevel) -> Tensor:
    """x - sigma v, with v as the stock pipeline asks for it."""
    pipeline, given, x = models.pipeline(name), tensors(name), latents()
    low = pipeline.config.boundary_ratio and level.timestep < pipeline.config.boundary_ratio * 1000
    transformer = pipeline.transformer_2 if low else pipeline.transformer
    parts = [x, given["condition"]] if "condition" in given else [x]
    tokens = CANVAS.frames * CANVAS.height * CANVAS.width // 4
    expanded = (1, tokens) if pipeline.config.expand_timesteps else (1,)
    with torch.no_grad():
        velocity = transformer(
            hidden_states=torch.cat(parts, dim=1),
            timestep=torch.full(expanded, int(level.timestep)),
            encoder_hidden_states=given["embeds"],
            encoder_hidden_states_image=given.get("image_embeds"),
        ).sample
    return x - level.sigma * velocity


LAYOUTS = ["wan", "wan22", "wan-i2v", "wan22-i2v", "wan22-small"]


@pytest.mark.parametrize("level", [HIGH, LOW], ids=["high", "low"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_clean_latents_are_the_stock_network_s(
    models: Models, name: str, level: NoiseLevel
) -> None:
    ours = denoised(models, name, level, WHOLE)
    assert distance(ours, stock_x0(models, name, level)) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_are_denoised_as_one(models: Models, name: str, bands: tuple[Band, ...]) -> None:
    whole = denoised(models, name, LOW, WHOLE)
    assert distance(denoised(models, name, LOW, bands), whole) <= EXACT_FLOAT32


@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_without_the_mode_are_wrong(models: Models, name: str) -> None:
    model, given = models.model(name), tensors(name)
    with torch.no_grad():
        parts = [
            model.denoised(
                latents()[..., band.start : band.stop, :],
                LOW,
                rows_of(given, band),
                BandPlace(band, CANVAS, trained),
                Guidance(5.0),
            )
            for band in CUTS[1]
        ]
    assert distance(torch.cat(parts, dim=-2), denoised(models, name, LOW, WHOLE)) > CONTROL


def test_each_expert_serves_its_side_of_the_boundary(models: Models) -> None:
    model = models.model("wan22")
    edge, below = NoiseLevel(875.0, 0.125, 0.875), NoiseLevel(874.0, 0.126, 0.874)
    assert model.denoiser_marks(edge) == model.denoiser_marks(HIGH)
    assert model.denoiser_marks(below) == model.denoiser_marks(LOW)
    assert model.denoiser_marks(edge) != model.denoiser_marks(below)
    with pytest.raises(BandError, match="made no attention"):
        on_bands(
            lambda x, place: model.denoised(x, LOW, tensors("wan22"), place, Guidance(5.0)),
            latents(),
            WHOLE,
            model.denoiser_marks(HIGH),
        )


def test_the_second_expert_has_a_guidance_scale_of_its_own(models: Models) -> None:
    model, x = models.model("wan22"), latents()
    positive, negative = x + 1, x

    def gain(level: NoiseLevel, guidance: Guidance) -> float:
        return float((model.guided(x, level, positive, negative, guidance) - x).mean())

    assert gain(HIGH, Guidance(4.0, scale_2=3.0)) == pytest.approx(4.0, abs=1e-5)
    assert gain(LOW, Guidance(4.0, scale_2=3.0)) == pytest.approx(3.0, abs=1e-5)
    assert gain(LOW, Guidance(4.0)) == pytest.approx(4.0, abs=1e-5)


def test_positions_are_asked_axis_by_axis(models: Models) -> None:
    """A method may stretch each axis; rows are the band's own."""
    asked: list[tuple[RotaryAxis, list[float]]] = []

    def stretched(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        assert sigma == LOW.sigma
        asked.append((axis, position_S.tolist()))
        return trained(axis, position_S, sigma) / 2

    model, band = models.model("wan"), Band(4, 10)
    with torch.no_grad():
        model.denoised(
            latents()[..., 4:, :],
            LOW,
            tensors("wan"),
            BandPlace(band, CANVAS, stretched),
            Guidance(5.0),
        )
    axes, positions = zip(*asked[:3], strict=True)
    assert [axis.name for axis in axes] == ["frame", "row", "column"]
    assert [axis.dim for axis in axes] == [8, 4, 4]
    assert [axis.length for axis in axes] == [3, 5, 3]
    assert [axis.trained for axis in axes] == [21, 52, 52]
    assert list(positions) == [[0, 1, 2], [2, 3, 4], [0, 1, 2]]
