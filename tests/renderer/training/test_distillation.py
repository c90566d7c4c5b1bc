"""Distilling a flow decoder: its teacher draws as renders do, and one step comes near to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.renderer.autoencoders.infgen_network import PATCH, InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.training.distillation import (
    DistillationPlan,
    DistillationTraining,
    crop_noise,
    residual,
)
from frieze.renderer.training.infgen_training import Crop, FlowPlan, FlowTraining, drawn_crop
from support.decoders import TINY, decoder
from support.stripes import Stripes, same
from tolerances import CONTROL, CROP_FLOAT32

FLAT = {"depth": 0, "trunk_depth": 0}  # a plain U-Net, which is quick
PLAN = DistillationPlan(steps=5, batch=1, crop=16, warm_up=2, scales=(1.0, 4.0), teacher_steps=3)


def flow(**options: Any) -> InfGenDecoder:
    """One that draws something else from every noise."""
    return decoder(torch.float32, num_steps=3, **options)


def test_the_teacher_draws_as_a_render_does() -> None:
    made, pictures = flow(), Stripes()
    crop = Crop((0,), Window.whole((8, 8)), (1.0,), seed=2**60 + 7)
    latent = made.latent(*pictures.latents(0))
    window = Window.whole((64, 64))
    drawn = made.draw(latent, window, seed=crop.seed, num_steps=3)
    expected = (drawn - made.enlarged(latent, window)) * made.gains(latent, window)
    noise = crop_noise(crop, drawn)
    assert torch.allclose(residual(made, latent, crop, noise, 3), expected, atol=CROP_FLOAT32)
    assert float((residual(made, latent, crop, noise, 2) - expected).abs().max()) > CONTROL


@torch.no_grad()
def far(training: DistillationTraining, student: InfGenDecoder, *, other: int = 0) -> float:
    """Mean squared error of one step on crops never learned from; `other` noise is another's."""
    errors: list[Tensor] = []
    pictures = Stripes()
    for step in range(1000, 1006):
        crop = drawn_crop(training.plan, pictures, step, 0)
        known = crop.latents(pictures)
        noise = crop_noise(crop, known[1])
        moved = Crop(crop.pictures, crop.tokens, (1.0,), crop.seed + other)
        made = residual(student, student.latent(*known), moved, crop_noise(moved, known[1]), 1)
        teacher = training.teacher
        expected = residual(teacher, teacher.latent(*known), crop, noise, 2)
        errors.append((made - expected).square().mean())
    return float(torch.stack(errors).mean())


@torch.enable_grad()
def test_one_step_comes_near_to_many() -> None:
    plan = DistillationPlan(
        steps=40,
        batch=1,
        crop=16,
        warm_up=5,
        rate=2e-3,
        scales=(2.0, 2.0),
        teacher_steps=2,
        ema=0.9,
    )
    training = DistillationTraining(flow(**FLAT), plan)
    before = far(training, training.network)
    losses: list[float] = []
    training.run(Stripes(), lambda _, loss: losses.append(loss))
    after = far(training, training.average)
    assert after < 0.6 * before
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert far(training, training.average, other=1) > 1.5 * after  # the control: unrelated noise
    assert same(training.teacher, flow(**FLAT))
    for each, steps in ((training.network, 1), (training.average, 1), (training.teacher, 3)):
        assert each.config.num_steps == steps


@torch.enable_grad()
def test_a_distillation_that_goes_on_makes_the_same_weights(tmp_path: Path) -> None:
    whole = DistillationTraining(flow(**FLAT), PLAN)
    whole.run(Stripes())
    begun = DistillationTraining(flow(**FLAT), PLAN)
    for _ in range(3):
        begun.step(Stripes())
    begun.save(tmp_path)
    again = DistillationTraining(InfGenDecoder(**TINY | FLAT), PLAN)
    again.restore(tmp_path)
    assert again.step_index == 3
    again.run(Stripes())
    assert same(again.network, whole.network)
    assert same(again.average, whole.average)
    assert same(again.teacher, whole.teacher)
    forgetful = DistillationTraining(
        InfGenDecoder(**TINY | FLAT), PLAN
    )  # the control: another teacher
    FlowTraining.load_states(forgetful, begun.states())
    forgetful.run(Stripes())
    assert not same(forgetful.network, whole.network)


def test_a_folder_of_it_draws_in_one_step(tmp_path: Path) -> None:
    DistillationTraining(flow(), PLAN).average.save_pretrained(tmp_path)
    made = InfGenDecoder.from_pretrained(tmp_path, use_safetensors=True)
    assert made.config.num_steps == 1


def test_crops_are_a_flows_own() -> None:
    plan = FlowPlan(steps=5, batch=1, crop=16, scales=(1.0, 4.0), seed=1)
    crop = drawn_crop(PLAN, Stripes(), 5, 0)
    assert crop == drawn_crop(plan, Stripes(), 5, 0)
    assert crop_noise(crop, torch.zeros(1)).shape == (1, 3, 2 * PATCH, 2 * PATCH)


def test_a_plan_that_distils_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="1 steps of a teacher; 2 or more work"):
        DistillationPlan(steps=1, teacher_steps=1)
    with pytest.raises(ValueError, match=r"share 1\.5 of the absolute error; 0 to 1 works"):
        DistillationPlan(steps=1, absolute=1.5)
    with pytest.raises(ValueError, match="crop 60 is no multiple of 8"):
        DistillationPlan(steps=1, crop=60)
