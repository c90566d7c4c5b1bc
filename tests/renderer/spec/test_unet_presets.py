"""HiDiffusion's and CineScale's presets: each is its published setting on its published U-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import configs_full
from frieze.renderer.extrapolation.guides import Detail
from frieze.renderer.extrapolation.method import StepContext
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.presets import preset, preset_names
from frieze.renderer.spec.render_spec import parse

CHECKPOINTS = {
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/sdxl-turbo": "sdxl-turbo",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "stabilityai/stable-diffusion-2-1-base": "sd21",
}
# Steps that stride, and steps that pool.
HIDIFFUSION = {
    "sdxl-hidiffusion-2k": (range(8), range(8, 20)),
    "sdxl-hidiffusion-4k": (range(15), range(35)),
    "sdxl-turbo-hidiffusion-1k": (range(0), range(2)),
    "sdxl-turbo-hidiffusion-2k": (range(0), range(2)),
    "sd15-hidiffusion-1k": (range(20), range(0)),
    "sd15-hidiffusion-2k": (range(35), range(15)),
    "sd21-hidiffusion-1k": (range(20), range(0)),
}
# Sides and steps of the stages, and of the later ones how far and until which step is dilated.
CINESCALE: dict[str, Any] = {
    "sdxl-cinescale-2k": ([1024, 2048], [50, 35], [(2, 20)]),
    "sdxl-cinescale-4k": ([1024, 2048, 4096], [50, 35, 35], [(2, 20), (4, 20)]),
    "sdxl-cinescale-8k": (
        [1024, 2048, 4096, 8192],
        [50, 35, 35, 35],
        [(2, 20), (4, 20), (8, 20)],
    ),
    "sdxl-turbo-cinescale-2k": ([512, 1024, 2048], [4, 2, 2], [(1, 0), (2, 2)]),
}
SIDES = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {hub: configs_full.build(name, root / name) for hub, name in CHECKPOINTS.items()}


def planned(name: str, folders: dict[str, Path], **changes: Any) -> CanvasPlan:
    values = preset(name)
    # Another machine's memory: this one's would not do.
    local = {"model": str(folders[values["model"]]), "address": "auto"}
    return plan(parse(values | local | changes))


def contexts(made: CanvasPlan, index: int) -> list[StepContext]:
    stage, seed = made.stages[index], made.spec.seed
    return [
        StepContext.of(made.facts, seed, stage.canvas, stage.levels, stage=index, step=step)
        for step in range(stage.num_steps)
    ]


def raunet_steps(made: CanvasPlan) -> tuple[list[int], list[int]]:
    """The steps of the first stage that stride, and those that pool."""
    assert made.method.convolutions is not None
    shapes = [made.method.convolutions.shape(context) for context in contexts(made, 0)]
    return (
        [step for step, shape in enumerate(shapes) if shape and shape.convs],
        [step for step, shape in enumerate(shapes) if shape and shape.pools],
    )


def test_every_preset_of_a_unet_is_here_and_named_by_its_size() -> None:
    assert {*HIDIFFUSION, *CINESCALE} == {
        name
        for name in preset_names()
        if preset(name)["model"] in CHECKPOINTS and "method" in preset(name)
    }
    for name in (*HIDIFFUSION, *CINESCALE):
        values = preset(name)
        model, method, size = name.rsplit("-", 2)
        assert (values["method"], values["height"]) == (method, SIDES[size])
        assert (CHECKPOINTS[values["model"]], values["width"]) == (model, SIDES[size])


@pytest.mark.parametrize("name", HIDIFFUSION)
def test_hidiffusion_strides_and_pools_as_released(folders: dict[str, Path], name: str) -> None:
    """What the preset states is also what the method would do unasked, and half of it is not."""
    made, unasked, half = (
        planned(name, folders, **changes)
        for changes in ({}, {"method_options": {}}, {"num_inference_steps": 2})
    )

    strided, pooled = HIDIFFUSION[name]
    assert raunet_steps(made) == raunet_steps(unasked) == (list(strided), list(pooled))
    assert raunet_steps(half) != raunet_steps(made)
    is_turbo = "turbo" in name
    (only,) = made.stages
    assert made.guidance.num_halves == (1 if is_turbo else 2)
    assert only.num_steps == made.spec.num_inference_steps + name.startswith(("sd1", "sd2"))  # PLMS
    assert made.guidance.scale == (1.0 if is_turbo else 7.5)
    assert made.size(0) == (made.spec.height, made.spec.width)


@pytest.mark.parametrize("name", CINESCALE)
def test_cinescale_restarts_and_dilates_as_released(folders: dict[str, Path], name: str) -> None:
    made = planned(name, folders)
    sides, steps, dilations = CINESCALE[name]
    assert [made.size(index) for index in range(len(made.stages))] == [(s, s) for s in sides]
    assert [stage.num_steps for stage in made.stages] == steps
    is_turbo = "turbo" in name
    starts = [stage.levels[0].timestep for stage in made.stages[1:]]
    assert starts == [499.0 if is_turbo else 681.0] * len(dilations)
    assert made.guidance.scale == (1.0 if is_turbo else 7.5)
    assert isinstance(made.method.guide, Detail)
    assert made.method.guide.factor == (1.0 if name.endswith("8k") else 2.0)
    assert made.method.convolutions is not None
    for index, (dilation, last) in enumerate(dilations, start=1):
        for context in contexts(made, index):
            shape = made.method.convolutions.shape(context)
            found = {each.dilation for each in shape.convs.values()} if shape else set()
            assert found == ({dilation} if context.step < last else set()), context
    factors = made.method.skips
    assert factors is not None
    assert (factors.b1, factors.b2, factors.s1, factors.s2) == (1.1, 1.2, 0.6, 0.4)
    assert made.method.micro_conditioning == "first"


def test_the_presets_of_the_shipped_unet_begin_at_its_trained_size() -> None:
    """HiDiffusion's thresholds are SDXL's at 4096 px, not those published for this size."""
    made, unasked, staged = (
        plan(parse(preset(name) | {"local": True} | changes))
        for name, changes in (
            ("demo-unet-hidiffusion", {}),
            ("demo-unet-hidiffusion", {"method_options": {}}),
            ("demo-unet-cinescale", {}),
        )
    )
    assert raunet_steps(made) == (list(range(4)), list(range(10)))
    assert raunet_steps(unasked) == ([0, 1], [2, 3, 4, 5])
    assert [staged.size(index)[0] for index in range(3)] == [128, 256, 512]
    assert made.size(0) == (256, 256)
    assert made.guidance.scale == staged.guidance.scale == 3.0


@pytest.mark.slow  # tracing a network of full size takes a minute
@pytest.mark.parametrize("name", [*HIDIFFUSION, *CINESCALE])
def test_eight_devices_of_80_gb_hold_every_preset(folders: dict[str, Path], name: str) -> None:
    planned(name, folders, address="", device="cuda", device_memory=74.5, workers=8)
