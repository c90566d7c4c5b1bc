"""HiDiffusion on whole U-Nets: the authors' outputs, on any bands, and what it refuses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import checkpoints
from frieze.cluster.attention import AttentionChange, AttentionShape
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import plan
from frieze.renderer.errors import PlanError
from frieze.renderer.extrapolation.convolutions import raunet, raunet_schedule
from frieze.renderer.extrapolation.windows import WINDOWED, shifted_windows, shifts
from frieze.renderer.spec.render_spec import RenderSpec
from support.unets import cuts, unet
from support.vectors import EXACT, difference, noise, vectors
from tolerances import AMPLE, CONTROL


@dataclass
class Shifted:
    """Windows moved by stated quarters, as the authors' random numbers had them."""

    shifts: dict[str, int]

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        shift = self.shifts.get(layer.removesuffix(".attn1"))

        def shape(rows: int, columns: int) -> AttentionShape | None:
            return None if shift is None else AttentionShape(shifted_windows(rows, columns, shift))

        return AttentionChange(q_BHSD, k_BHSD, shape=shape)


def drawn(vector: dict[str, Any], bands: tuple[Band, ...], quarters: dict[str, int]) -> Tensor:
    network, marks = unet(vector["model"])
    size = tuple(vector["latent"])
    schedule = raunet_schedule(vector["model"], size, vector["num_steps"])
    shape = raunet(vector["model"], schedule, vector["step"]) if vector["raunet"] else None
    x, text = noise((1, 4, *size), vector["seed"]), noise((1, 5, 8), vector["seed"] + 1)

    def rank(comm: Comm) -> Tensor:
        band, modifier = bands[comm.rank], Shifted(quarters)
        with (
            torch.no_grad(),
            band_mode(comm, bands, marks=marks, canvas=Canvas(1, *size), modifier=modifier),
            conv_shape(shape),
        ):
            out: Tensor = network(x[:, :, band.start : band.stop], 500.0, text).sample
            return out

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 2)


# One of each network; the third is the second at another step.
@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(vector, marks=pytest.mark.slow if index == 2 else [])
        for index, vector in enumerate(vectors("windows_unet"))
    ],
)
def test_windows_in_whole_unets_are_hidiffusions(vector: dict[str, Any]) -> None:
    quarters = dict(map(tuple, vector["shift_of_block_in_order"]))
    kind = "sd15" if vector["model"] == "sd15" else "sdxl"
    assert all(name.startswith(WINDOWED[kind]) for name in quarters)
    for bands in cuts(vector["latent"][0], 16):
        found = difference(drawn(vector, bands, quarters), vector["output"])
        assert found <= EXACT, bands
    other = drawn(vector, bands, {name: (q + 1) % 4 for name, q in quarters.items()})
    assert difference(other, vector["output"]) > CONTROL


def test_a_layer_never_shifts_alike_twice_in_a_row_and_follows_its_key_alone() -> None:
    steps = [shifts("3/0/down", step) for step in range(400)]
    assert all(a != b for a, b in itertools.pairwise(steps))
    assert {steps.count(q) > 60 for q in range(4)} == {True}
    assert steps[40] == shifts("3/0/down", 40)
    assert steps != [shifts("3/0/up", step) for step in range(400)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("sd15-deep", "sdxl-deep", "sdxl")
    return {name: checkpoints.build(name, tmp_path_factory.mktemp(name)) for name in names}


def spec(folder: Path | str, **fields: Any) -> RenderSpec:
    return RenderSpec(prompt="x", model=str(folder), method="hidiffusion", **fields)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        (
            "sdxl-deep",
            {"height": 576, "width": 544},
            "width 544 is no multiple of 64, .* works is 512",
        ),
        ("sd15-deep", {"height": 2176, "width": 2048}, "height 2176 is no multiple of 256"),
        ("sd15-deep", {"height": 512, "width": 512, "chunk": 64}, "chunk 64 does not work"),
        ("sd15-deep", {"height": 512, "width": 512, "workers": 5}, "5 workers are more than the 4"),
        ("sdxl", {"height": 512, "width": 512}, "is another U-Net"),
        ("demo", {"height": 512, "width": 512}, "changes the U-Net of Stable Diffusion .* flux"),
    ],
)
def test_what_it_cannot_draw_is_refused_with_what_works(
    folders: dict[str, Path], name: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        plan(spec(folders.get(name, name), **fields))


def test_up_to_the_trained_size_every_size_is_drawn(folders: dict[str, Path]) -> None:
    made = plan(spec(folders["sd15-deep"], height=64, width=128))
    assert made.stages[0].canvas == Canvas(1, 8, 16)
