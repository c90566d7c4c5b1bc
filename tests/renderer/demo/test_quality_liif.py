"""The benchmark's local implicit image function: where it starts, windows, and that it learns."""

from __future__ import annotations

import pytest
import torch

from bench.quality_liif import LIIF, train
from frieze.kernels import bicubic
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.training.infgen_training import FlowPlan
from support.stripes import Stripes
from tolerances import CROP_FLOAT32, EXACT_FLOAT32

SIZE = (96, 80)
WINDOW = Window(SIZE, range(17, 50), range(3, 71))


@pytest.fixture
def network() -> LIIF:
    torch.manual_seed(0)
    return LIIF(latent_channels=4, channels=8, depth=1, hidden=16)


@torch.no_grad()
def test_it_starts_as_the_enlarged_decode_and_a_window_is_the_whole_s(network: LIIF) -> None:
    z, picture = Stripes().latents(0)
    features = network.features(z, picture)
    whole = Window.whole(SIZE)
    low = bicubic.enlarge(picture, SIZE, whole.rows, whole.columns)
    assert (network(features, picture, whole) - low).abs().max() < EXACT_FLOAT32
    torch.nn.init.normal_(network.asked[-1].weight)
    made = network(features, picture, whole)
    assert (made - low).abs().max() > 0.1
    part = network(features, picture, WINDOW)
    assert (part - WINDOW.of(whole, made)).abs().max() < CROP_FLOAT32
    moved = Window(SIZE, range(18, 51), WINDOW.columns)  # the control
    assert (part - moved.of(whole, made)).abs().max() > 0.01


@torch.no_grad()
def off(network: LIIF) -> float:
    """Mean absolute error on pictures twice as large as their decode."""
    whole, errors = Window.whole((64, 64)), []
    for number in range(3):
        z, picture = Stripes().latents(number)
        made = network(network.features(z, picture), picture, whole)
        errors.append(float((made - Stripes().crop(number, whole)).abs().mean()))
    return sum(errors) / 3


def test_it_learns_what_a_decode_lacks(network: LIIF) -> None:
    plan = FlowPlan(steps=60, batch=2, crop=32, scales=(2.0, 2.0), warm_up=5, rate=5e-3, ema=0.9)
    before = off(network)
    kept = train(network, Stripes(), plan, seconds=1e-9)  # the control: no time to learn
    assert off(kept) == before
    assert off(train(network, Stripes(), plan)) < 0.9 * before
