"""HiDiffusion's thresholds, as its code computed them."""

from __future__ import annotations

from typing import Any

import pytest

from frieze.renderer.extrapolation.convolutions import raunet, raunet_schedule
from support.vectors import vectors


@pytest.mark.parametrize("vector", vectors("hidiffusion_schedule"))
def test_thresholds_are_hidiffusions(vector: dict[str, Any]) -> None:
    steps = vector["num_steps"]
    schedule = raunet_schedule(vector["model"], tuple(vector["latent"]), steps)
    for name, (first, end) in {"strided": schedule.strided, "pooled": schedule.pooled}.items():
        found, expected = range(first, end), range(*vector[name])
        assert list(found) == list(expected), name


def test_a_step_beyond_the_thresholds_is_plain() -> None:
    schedule = raunet_schedule("sdxl", (256, 256), 50)
    steps = [raunet("sdxl", schedule, step) for step in range(50)]
    assert [bool(shape.convs) for shape in steps] == [step < 8 for step in range(50)]
    assert [bool(shape.pools) for shape in steps] == [8 <= step < 20 for step in range(50)]
