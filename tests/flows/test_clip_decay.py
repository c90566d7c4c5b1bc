"""Clips longer than trained whose attention decays along their frames (UltraViCo)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.gallery import Drawn, Gallery, differ, equal, grey_levels

pytestmark = pytest.mark.usefixtures("kept_encoders")

# Tiny Wan says here that it knows 5 frames, 2 of tokens; 13 frames are 4 of tokens.
TRAINED, LONG = 5, 13
# Strong, so that it shows in a random model.
STRONG: dict[str, Any] = {"method": "ultravico", "method_options": {"alpha": 0.05}}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    made = Gallery(tmp_path_factory.mktemp("clips"))
    hints = made.checkpoint("wan") / "frieze.json"
    hints.write_text(json.dumps({"training_frames": TRAINED}))
    return made


@pytest.fixture(scope="module")
def alone(gallery: Gallery) -> Drawn:
    """One rank's decaying clip."""
    return drawn(gallery, LONG, **STRONG)


def drawn(gallery: Gallery, frames: int, **changes: Any) -> Drawn:
    small = {"height": 64, "width": 32, "num_inference_steps": 1}
    return gallery.fresh("wan", num_frames=frames, **small, **changes)


@pytest.mark.parametrize(
    "spread",
    [
        {"workers": 3},
        pytest.param({"workers": 2, "ulysses": 2}, marks=pytest.mark.slow),
        {"workers": 4, "guidance_ranks": 2},
    ],
)
def test_a_decaying_clip_does_not_depend_on_the_ranks(
    gallery: Gallery, alone: Drawn, spread: dict[str, int]
) -> None:
    equal(drawn(gallery, LONG, **STRONG, **spread), alone)


def test_decay_shows_in_a_clip_longer_than_trained_unless_its_factors_are_1(
    gallery: Gallery, alone: Drawn
) -> None:
    plain = drawn(gallery, LONG, method="none")
    differ(alone, plain)
    equal(drawn(gallery, LONG, method="ultravico", method_options={"alpha": 1.0}), plain)


def test_a_clip_of_the_trained_length_does_not_decay_bit_by_bit(gallery: Gallery) -> None:
    plain, same = (drawn(gallery, TRAINED, workers=2, **method) for method in ({}, STRONG))
    assert plain.latents_CTHW.equal(same.latents_CTHW)
    assert grey_levels(plain, same) == 0
