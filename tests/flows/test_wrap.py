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
DEMO = {"width": 512, "height": 128}
# Models and ways: at once, grown from a smaller picture or from its latents, and by the decoder of
# any size.
WAYS: dict[str, dict[str, Any]] = {
    "demo": DEMO,
    "demo-unet": {"model": "demo-unet", "width": 128, "height": 128, "chunk": 32},
    "stages": DEMO | {"stages": [{"scale": 0.5}, {"start": 0.4}]},
    "latents": DEMO | {"stages": [{"scale": 0.5}, {"start": 0.4, "enlarge": "latents"}]},
    "decoder": {"width": 1024, "height": 256, "decoder": "infgen", "chunk": 64},
}
SLOW = ("demo-unet", "latents", "decoder")  # each is shown to the last bits elsewhere


def edge(picture: np.ndarray, axis: int) -> tuple[float, float]:
    """The mean step where two sides would meet, and the largest between columns (or rows) inside,
    both over the mean inside."""
    steps = np.abs(picture.astype(float) - np.roll(picture, 1, axis).astype(float))
    across = steps.mean(axis=(1 - axis, 2))
    return across[0] / across[1:].mean(), across[1:].max() / across[1:].mean()


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow) if way in SLOW else way for way in WAYS]
)
def test_there_is_no_edge_where_sides_meet(way: str, tmp_path: Path) -> None:
    """Network and decoder, on one worker, two and three, of which the first and the last meet."""
    fields = {"method": "none", "num_inference_steps": 6} | WAYS[way]
    # Between the ground and the sky above it there is a step at any size.
    both, axes = ("x", (1,)) if "stages" in fields else ("xy", (0, 1))
    for name, more in {
        "plain": {},
        "x": {"wrap": "x", "workers": 2},
        "one": {"wrap": both},
        "three": {"wrap": both, "workers": 3},
    }.items():
        draw(tmp_path / f"{name}.zarr", **fields | more)
    plain, x, one, three = (
        pixels(tmp_path / f"{name}.zarr") for name in ("plain", "x", "one", "three")
    )
    assert grey_levels(three, one) <= GREY_LEVELS
    for picture, meeting in ((x, (1,)), (one, axes), (three, axes)):
        for axis in meeting:
            step, most = edge(picture, axis)
            assert step <= most, (axis, step, most)
    for picture, axis in ((plain, 1), *(((plain, 0), (x, 0)) if 0 in axes else ())):
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
        ({"height": 512, "width": 512, "method": "hiflow"}, "is guided by what ends at its edges"),
        (
            {"height": 512, "width": 512, "attend": "windows"},
            "ends at windows' edges",
        ),
        (
            {"height": 4096, "width": 4096, "decoder": "infgen"},
            "takes the decoder 2 rounds.* use at most 8 times the size that is drawn",
        ),
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
