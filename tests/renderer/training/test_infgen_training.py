"""Training an InfGen decoder: what is drawn, what is learned, and going on to the same weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.training.infgen_training import (
    FlowPlan,
    FlowTraining,
    drawn_crop,
    flow_loss,
)
from support.decoders import TINY
from support.stripes import Stripes, same
from tolerances import CONTROL

PLAN = FlowPlan(steps=6, batch=2, crop=16, warm_up=2, scales=(1.0, 4.0))


def network() -> InfGenDecoder:
    torch.manual_seed(0)
    return InfGenDecoder(**TINY)


def trained(plan: FlowPlan, **options: Any) -> FlowTraining:
    training = FlowTraining(network(), plan)
    training.run(Stripes(), **options)
    return training


def test_crops_are_of_the_canvas_and_by_their_numbers() -> None:
    crops = [drawn_crop(PLAN, Stripes(), step, 0) for step in range(400)]
    assert crops == [drawn_crop(PLAN, Stripes(), step, 0) for step in range(400)]
    assert drawn_crop(PLAN, Stripes(), 0, 1) != crops[0]
    for crop in crops:
        window = crop.tokens.times(8)
        assert window.shape == (16, 16)
        assert window.rows.stop <= window.size[0]
        assert window.columns.stop <= window.size[1]
        assert 32 <= window.size[0] == window.size[1] <= 128
        assert all(0 < time < 1 for time in crop.times)
    assert {crop.pictures for crop in crops} == {(0,), (1,), (2,)}
    logs = torch.tensor([math.log2(crop.tokens.size[0] / 4) for crop in crops])
    assert float(logs.mean()) == pytest.approx(1, abs=0.1)  # log-uniform from 1 to 4
    edges = [crop.tokens for crop in crops if crop.tokens.rows.start == 0]
    assert len(edges) > 40
    assert any(crop.tokens.rows.stop == crop.tokens.size[0] for crop in crops)


class OneStar(Stripes):
    """Black but for one light, of which the decode knows nothing."""

    def crop(self, number: int, window: Window) -> Tensor:
        sky = torch.full((1, 3, *window.size), -1.0)
        row, column = (int(part * most) for part, most in zip(STAR, window.size, strict=True))
        sky[:, :, row, column] = 1.0
        return window.of(Window.whole(window.size), sky)

    def latents(self, number: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 4, 4, 4), torch.full((1, 3, 32, 32), -1.0)


STAR = (0.8, 0.3)  # its place, in parts of the height and width


@pytest.mark.parametrize(("sought", "least", "most"), [(1.0, 200, 200), (0.0, 0, 100)])
def test_crops_lie_where_the_decode_is_wrong(sought: float, least: int, most: int) -> None:
    plan = dataclasses.replace(PLAN, sought=sought)
    crops = [drawn_crop(plan, OneStar(), step, 0).tokens for step in range(200)]
    lit = sum(float(OneStar().crop(0, each.times(8)).max()) > 0 for each in crops)
    assert least <= lit <= most


class TwoSizes(Stripes):
    """As tall as wide, and every third one wider."""

    def decoded_size(self, number: int) -> tuple[int, int]:
        return (32, 48) if number == 2 else (32, 32)


def test_pictures_of_a_size_are_learned_from_together() -> None:
    plan = FlowPlan(steps=1, batch=11, crop=16)
    assert plan.groups == 3
    assert [plan.together(item) for item in range(3)] == [4, 4, 3]
    groups = [drawn_crop(plan, TwoSizes(), step, 0) for step in range(60)]
    assert {len(crop.pictures) for crop in groups} == {4}
    mixed = [crop.pictures for crop in groups if len(set(crop.pictures)) > 1]
    assert mixed
    assert all(2 not in pictures for pictures in mixed)  # it is the only one of its size
    assert (2, 2, 2, 2) in [crop.pictures for crop in groups]
    assert all(len(set(crop.times)) == 4 for crop in groups)
    crop = drawn_crop(plan, TwoSizes(), 0, 2)
    made, pictures = network(), TwoSizes()
    latent = made.latent(*crop.latents(pictures), crop.tokens)
    one = float(flow_loss(made, latent, crop, crop.target(pictures), plan))
    alone = []
    for index, (picture, time) in enumerate(zip(crop.pictures, crop.times, strict=True)):
        own = dataclasses.replace(crop, pictures=(picture,), times=(time,))
        latent = made.latent(*own.latents(pictures), crop.tokens)
        target = crop.target(pictures)[index : index + 1]
        alone.append(float(flow_loss(made, latent, own, target, plan)))
    assert one == pytest.approx(sum(alone) / 3, rel=1e-5)  # at the start whatever the noise


def test_the_loss_of_a_network_at_its_start_is_the_residuals_own() -> None:
    pictures, made = Stripes(), network()
    crop = drawn_crop(PLAN, pictures, 3, 0)
    latent = made.latent(*crop.latents(pictures))
    target = crop.target(pictures)
    window = crop.tokens.times(8)
    residual = made.gains(latent, window) * (target - made.enlarged(latent, window))
    weight = 1 / max(crop.times[0], 0.12) ** 2
    plain = FlowPlan(steps=1, crop=16, quadratic=1e4)  # all errors are small beside it
    found = float(flow_loss(made, latent, crop, target, plain))
    assert found == pytest.approx(weight * float(residual.square().mean()), rel=1e-3)
    small = FlowPlan(steps=1, crop=16, quadratic=1e-4)  # and here all are large
    found = float(flow_loss(made, latent, crop, target, small))
    assert found == pytest.approx(weight * 2e-4 * float(residual.abs().mean()), rel=1e-2)


@torch.enable_grad()
def test_it_learns_and_the_average_follows() -> None:
    losses: list[float] = []
    plan = FlowPlan(steps=40, batch=2, crop=16, warm_up=5, rate=5e-3, scales=(2.0, 2.0), sought=0.0)
    training = trained(plan, tell=lambda _, loss: losses.append(loss))
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert not same(training.average, training.network)
    fresh = network()
    moved = training.average.conv_out.weight - fresh.conv_out.weight.detach()
    assert float(moved.abs().max()) > CONTROL


@torch.enable_grad()
def test_a_training_that_goes_on_makes_the_same_weights(tmp_path: Path) -> None:
    whole = trained(PLAN)
    begun = FlowTraining(network(), PLAN)
    for _ in range(3):
        begun.step(Stripes())
    begun.save(tmp_path)
    again = FlowTraining(InfGenDecoder(**TINY), PLAN)
    again.restore(tmp_path)
    assert again.step_index == 3
    again.run(Stripes())
    assert same(again.network, whole.network)
    assert same(again.average, whole.average)
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]
    forgetful = FlowTraining(InfGenDecoder(**TINY), PLAN)  # the control: without the optimiser
    forgetful.network.load_state_dict(begun.network.state_dict())
    forgetful.step_index = 3
    forgetful.run(Stripes())
    assert not same(forgetful.network, whole.network)


def test_the_rate_rises_and_falls() -> None:
    training = FlowTraining(network(), FlowPlan(steps=100, warm_up=10, rate=1.0))
    rates = []
    for training.step_index in range(101):
        rates.append(training.rate)
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.03)
    assert rates[100] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_a_crop_of_no_whole_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="crop 60 is no multiple of 8"):
        FlowPlan(steps=1, crop=60)
