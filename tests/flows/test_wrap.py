"""Pictures whose sides meet: rolled by half they have no edge, alike on any workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from frieze.renderer import RenderSpec, plan
from frieze.renderer.errors import PlanError
from frieze.renderer.models.positions import RotaryAxis, interpolated, periodic, trained
from support.drawing import draw, grey_levels, pixels
from tolerances import EXACT_FLOAT64, GREY_LEVELS

pytestmark = [pytest.mark.usefixtures("kept_encoders"), pytest.mark.long]
MODELS: dict[str, dict[str, Any]] = {
    "demo": {"width": 512, "height": 128},
    "demo-unet": {"width": 128, "height": 128, "chunk": 32},
}


def edge(picture: np.ndarray, axis: int) -> tuple[float, float]:
    """The mean step where two sides would meet, and the largest between columns (or rows) inside,
    both over the mean inside."""
    steps = np.abs(picture.astype(float) - np.roll(picture, 1, axis).astype(float))
    across = steps.mean(axis=(1 - axis, 2))
    return across[0] / across[1:].mean(), across[1:].max() / across[1:].mean()


# U-Nets are shown to the last bit in tests/cluster/bands/test_wrap.py.
@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=pytest.mark.slow) if m == "demo-unet" else m for m in MODELS]
)
def test_there_is_no_edge_where_sides_meet(model: str, tmp_path: Path) -> None:
    """Network and decoder, on one worker and on three, of which the first and the last meet."""
    fields = MODELS[model] | {"model": model, "method": "none", "num_inference_steps": 6}
    for name, more in {
        "plain": {},
        "x": {"wrap": "x"},
        "one": {"wrap": "xy"},
        "three": {"wrap": "xy", "workers": 3},
    }.items():
        draw(tmp_path / f"{name}.zarr", **fields | more)
    plain, x, one, three = (
        pixels(tmp_path / f"{name}.zarr") for name in ("plain", "x", "one", "three")
    )
    assert grey_levels(three, one) <= GREY_LEVELS
    for picture, axes in ((x, (1,)), (one, (0, 1)), (three, (0, 1))):
        for axis in axes:
            step, most = edge(picture, axis)
            assert step <= most, (axis, step, most)
    for picture, axis in ((plain, 0), (plain, 1), (x, 0)):
        assert edge(picture, axis)[0] > 3 * edge(one, axis)[0], "control"


def test_positions_turn_whole_times_around() -> None:
    axis = RotaryAxis("column", 16, 10000.0, 8, 12)
    at = torch.arange(25)
    for policy in (trained, interpolated):
        angles = periodic(policy, "x")(axis, at, 0.5)
        turned = torch.polar(torch.ones_like(angles), angles)
        assert float((turned[12:] - turned[:13]).abs().max()) <= EXACT_FLOAT64
        plain = policy(axis, at, 0.5)
        # No frequency is off by more than half a turn around the canvas.
        assert float((angles - plain)[12].abs().max()) <= torch.pi + EXACT_FLOAT64
        assert float((plain[12] % (2 * torch.pi)).abs().max()) > 0.1, "control"
        row = RotaryAxis("row", 16, 10000.0, 8, 12)
        assert torch.equal(periodic(policy, "x")(row, at, 0.5), policy(row, at, 0.5))
    assert periodic(trained, "") is trained


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "sd3"}, "sd3 has learnt positions"),
        ({"height": 512, "width": 512}, "method 'auto' enlarges a picture"),
        ({"height": 512, "width": 512, "method": "pi"}, "method 'pi' enlarges a picture"),
        ({"stages": ({"scale": 0.5}, {"start": 0.6})}, "stages enlarge a picture"),
        ({"init": "a.png"}, "init 'a.png' ends at its edges"),
        ({"method": "none", "strategy": "tiles"}, "strategy 'tiles' ends at its tiles' edges"),
        ({"model": "demo-unet", "method": "hidiffusion"}, "looks at parts of the canvas"),
        ({"method": "sega"}, "looks at parts of the canvas"),
    ],
)
def test_what_has_edges_is_refused_in_a_line(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    if fields.get("model") == "sd3":
        fields = fields | {"model": str(checkpoints.build("sd3", tmp_path / "sd3"))}
    values = {"prompt": "x", "height": 256, "width": 256, "wrap": "x"} | fields
    with pytest.raises(PlanError, match=says) as refused:
        plan(RenderSpec(**values))
    assert "\n" not in str(refused.value)
