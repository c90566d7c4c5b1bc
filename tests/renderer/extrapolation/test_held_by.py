"""What creativity means: from where a redraw starts, and how strongly it is held."""

from __future__ import annotations

import itertools

import pytest

from frieze.renderer.extrapolation.cascade import start_of
from frieze.renderer.extrapolation.guides import Detail, Flow, Guide, Resolution, held_by
from frieze.renderer.spec.render_spec import HeldBy

STEPS = [index / 10 for index in range(11)]


def strength(guide: Guide | None) -> float:
    """How much a guide weighs, 0 for none."""
    match guide:
        case Flow():
            assert guide.accelerate == guide.align[0] / 2
            return guide.align[0]
        case Resolution():
            return guide.strength if guide.is_on else 0.0
        case Detail():  # what of the latents is the picture's half way down
            return guide.hold(0.5) ** guide.factor
    return 0.0


@pytest.mark.parametrize("name", ["hiflow", "low-band", "detail"])
def test_what_is_freer_starts_from_more_noise_and_is_held_less(name: HeldBy) -> None:
    starts, held = [start_of(c) for c in STEPS], [strength(held_by(name, c)) for c in STEPS]
    assert all(a < b for a, b in itertools.pairwise(starts))
    assert all(a > b for a, b in itertools.pairwise(held))
    assert (starts[0], starts[-1]) == (0.15, 0.9)
    assert (held[0], held[-1]) == (1.0, 0.0)
    assert held_by(name, 1.0) is None


def test_none_holds_nothing() -> None:
    assert held_by("none", 0.0) is None
