"""Memory is counted with every method: what looks at frequencies finds them on the meta device."""

from __future__ import annotations

import pytest
import torch

from contracts.method import UNET_METHODS
from frieze.renderer import RenderSpec, plan, plugins
from frieze.renderer.extrapolation.frequencies import policy
from frieze.renderer.models.positions import RotaryAxis

OPTIONS = {"riflex": {"along": "picture"}}
OTHERS = {"ultravico", *UNET_METHODS}  # the first draws no pictures


@pytest.mark.parametrize("name", sorted(set(plugins.names("methods")) - OTHERS))
def test_a_plan_past_the_trained_size_is_counted(name: str) -> None:
    options = OPTIONS.get(name, {})
    spec = RenderSpec(prompt="x", method=name, method_options=options, height=512, width=256)
    assert plan(spec).estimate.bytes_per_device > 0


def test_a_rule_that_looks_at_frequencies_sees_those_of_the_host() -> None:
    axis = RotaryAxis("row", 16, 1e4, 16, 32)
    seen: list[list[float]] = []

    def rule(axis: RotaryAxis, omega_F: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(omega_F.tolist())
        return omega_F / 2

    positions = policy(rule)
    held = positions(axis, torch.arange(32), 0.5)
    counted = positions(axis, torch.arange(32, device="meta"), 0.5)
    assert (counted.shape, counted.dtype, counted.device.type) == (held.shape, held.dtype, "meta")
    assert seen[0] == seen[1]
