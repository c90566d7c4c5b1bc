"""CineScale's ladders for Wan: each preset is the released setting on the published checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import configs_full
from frieze.renderer.errors import PlanError
from frieze.renderer.models.positions import RotaryAxis, frequencies
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.estimate import fits
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.presets import preset, preset_names
from frieze.renderer.spec.render_spec import parse

SMALL = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
FIRST_FRAME = {"image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36}
ANIMATES = {
    "_class_name": "WanImageToVideoPipeline",
    "image_encoder": ["transformers", "CLIPVisionModel"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
}
EXPERTS = {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.875}
# By hub id, what differs from Wan 2.1 14B: its transformer's config, and the index.
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": ({}, {}),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": (SMALL, {}),
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": (FIRST_FRAME, ANIMATES),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": ({}, EXPERTS),
}
# Height and width of both stages, their steps, shifts and bases, and where the second starts.
LADDERS: dict[str, Any] = {
    "wan-cinescale-3k": ([(1088, 1920), (1632, 2880)], [50, 35], [7, 9], [20, 25], 0.9545),
    "wan-cinescale-4k": ([(1088, 1920), (2176, 3840)], [50, 35], [7, 11], [20, 25], 0.9625),
    "wan-i2v-cinescale-3k": ([(1088, 1920), (1632, 2880)], [50, 35], [5, 6.43], [20, 25], 0.9375),
    "wan-i2v-cinescale-4k": ([(1088, 1920), (2176, 3840)], [50, 35], [5, 7.86], [20, 25], 0.9483),
    "wan22-rectified-4k": ([(720, 1280), (2160, 3840)], [40, 30], [12, 12], [1, 1], 0.9730),
}
FACTORS = {"wan-cinescale-3k": 1.0495, "wan-cinescale-4k": 1.0846, "wan-i2v-cinescale-4k": 1.0495}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {hub: published(hub, tmp_path_factory.mktemp("wan")) for hub in PUBLISHED}


def published(hub: str, folder: Path) -> Path:
    """A checkpoint as its configs say it, without weights."""
    transformer, index = PUBLISHED[hub]
    files = json.loads((configs_full.HERE / "wan14b.json").read_text(encoding="utf-8"))
    parameters = files.pop("parameters")
    files["transformer/config.json"] |= transformer
    files["model_index.json"] |= index
    if "transformer_2" in index:
        files["transformer_2/config.json"] = files["transformer/config.json"]
        parameters["transformer_2"] = 1
    if "image_encoder" in index:
        files["image_encoder/config.json"] = {"image_size": 224, "patch_size": 14}
        parameters["image_encoder"] = 1
    return configs_full.write(files, parameters, folder)


def planned(name: str, folders: dict[str, Path], image: Path, **changes: Any) -> CanvasPlan:
    values = preset(name)
    # Another machine's memory: this one's would not do.
    local = {"model": str(folders[values["model"]]), "address": "auto"}
    if "i2v" in name:
        Image.fromarray(np.zeros((72, 128, 3), np.uint8)).save(image)
        local["image"] = str(image)
    return plan(parse(values | local | changes))


def test_every_preset_of_a_clip_is_here() -> None:
    cascades = {name for name in preset_names() if preset(name).get("method") == "cinescale"}
    assert set(LADDERS) == {name for name in cascades if preset(name)["model"] in PUBLISHED}


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_is_the_released_one(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    made = planned(name, folders, tmp_path / "first.png")
    sizes, steps, shifts, bases, start = LADDERS[name]
    assert [made.size(index) for index in range(len(made.stages))] == sizes
    assert [stage.num_steps for stage in made.stages] == steps
    assert [stage.table.shift for stage in made.stages] == pytest.approx(shifts, abs=5e-3)
    assert made.stages[1].levels[0].sigma == pytest.approx(start, abs=5e-5)
    assert made.stages[1].levels[-2].sigma == pytest.approx(
        shifts[1] / (made.spec.num_inference_steps - 1 + shifts[1]), abs=1e-3
    )
    assert (made.facts.schedule.solver, made.stages[1].enlarge) == ("euler", "latents_linear")
    for (height, width), base in zip(sizes, bases, strict=True):
        for axis, side in (("row", height), ("column", width)):
            own = RotaryAxis(axis, 42, 10000.0, made.facts.training_size // 12, side // 16)
            found = made.method.positions(own, torch.ones(1), 1.0)[0]
            grown = RotaryAxis(axis, 42, 10000.0 * base, own.trained, own.length)
            assert torch.allclose(found, frequencies(grown, torch.ones(1)), rtol=1e-12)
    if name in FACTORS:
        assert made.method.focus is not None
        assert made.method.focus.of_frame is not None
        height, width = sizes[1]
        factor = made.method.focus.of_frame(height * width // 256)
        assert factor == pytest.approx(FACTORS[name], abs=5e-5)
    assert (made.method.key_positions is None) == ("rectified" not in name)


@pytest.mark.slow  # tracing a network of full size takes a minute
def test_eight_devices_of_80_and_141_gb_hold_the_ladder_to_4k(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """As it ships, with weights in float8; devices of 24 GB hold it on no eight."""
    for gb in (80, 141):
        changes = {"workers": 8, "device": "cuda", "device_memory": gb * 1e9 / 2**30}
        made = planned("wan-cinescale-4k", folders, tmp_path / "first.png", **changes)
        assert fits(made.estimate, gb * 10**9) is None
    assert made.estimate.bytes_per_device > 40e9
    assert "GiB on each device" in str(fits(made.estimate, 24 * 10**9))
    few = {"workers": 2, "device_memory": 74.5}
    with pytest.raises(PlanError, match=r"does not fit: .* would do"):
        planned("wan-cinescale-4k", folders, tmp_path / "first.png", **changes | few)
