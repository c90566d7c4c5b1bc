"""Presets are planned against their own checkpoint's published configs, and say what they should.

Those for U-Nets are in `test_unet_presets.py`.
Qwen-Image's configs are as published copies of the checkpoint have them (the transformer's:
https://huggingface.co/TensorStack/Qwen-Image-ts/blob/main/transformer/config.json); those of its
transformer and autoencoder are also the defaults that diffusers documents for these classes.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import configs_full
from frieze.renderer.errors import PlanError
from frieze.renderer.extrapolation.guides import Resolution, View
from frieze.renderer.models.positions import RotaryAxis, frequencies
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.sampling.timestep_shift import shifted
from frieze.renderer.spec.presets import preset, preset_names
from frieze.renderer.spec.render_spec import parse

QWEN: dict[str, Any] = {
    "model_index.json": {"_class_name": "QwenImagePipeline"},
    "scheduler/scheduler_config.json": {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 8192,
        "max_shift": 0.9,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
        "use_dynamic_shifting": True,
    },
    "transformer/config.json": {
        "_class_name": "QwenImageTransformer2DModel",
        "attention_head_dim": 128,
        "axes_dims_rope": [16, 56, 56],
        "guidance_embeds": False,
        "in_channels": 64,
        "joint_attention_dim": 3584,
        "num_attention_heads": 24,
        "num_layers": 60,
        "out_channels": 16,
        "patch_size": 2,
        "pooled_projection_dim": 768,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKLQwenImage",
        "base_dim": 96,
        "dim_mult": [1, 2, 4, 4],
        "temperal_downsample": [False, True, True],
        "z_dim": 16,
    },
}
published = [name for name in preset_names() if "ultraimage" in name]
FLUX_ROW = RotaryAxis("row", 56, 10000.0, 64, 225)
QWEN_ROW = RotaryAxis("row", 56, 10000.0, 83, 256)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    qwen = configs_full.write(QWEN, {"text_encoder": 1}, tmp_path_factory.mktemp("qwen"))
    flux = configs_full.build("flux1", tmp_path_factory.mktemp("flux"))
    return {"black-forest-labs/FLUX.1-dev": flux, "Qwen/Qwen-Image": qwen}


def planned(name: str, folders: dict[str, Path], **changes: Any) -> CanvasPlan:
    values = preset(name)
    local = {"model": str(folders[values["model"]])} if values["model"] != "demo" else {}
    # Another machine's memory: this one's would not do.
    return plan(parse(values | local | {"address": "auto"} | changes))


def periods(made: CanvasPlan, axis: RotaryAxis) -> list[float]:
    angle_F = made.method.positions(axis, torch.ones(1), 1.0)[0]
    return (2 * torch.pi / angle_F).tolist()


def test_there_are_presets_for_both_models(folders: dict[str, Path]) -> None:
    assert published == [
        *("flux-ultraimage", "flux-ultraimage-resolution", "flux-ultraimage-view"),
        "qwen-ultraimage",
    ]
    for name in ("demo-cascade", *published):
        made = planned(name, folders)
        assert made.size(len(made.stages) - 1) == (made.spec.height, made.spec.width)


@pytest.mark.parametrize("name", [name for name in published if name.startswith("flux")])
def test_flux_has_its_released_frequency_and_concentration(
    folders: dict[str, Path], name: str
) -> None:
    made = planned(name, folders)
    slow, trained = periods(made, FLUX_ROW), (2 * torch.pi / frequencies(FLUX_ROW, torch.ones(1)))
    assert slow[9] == pytest.approx(264.71, abs=0.01)
    assert [j for j in range(28) if slow[j] != pytest.approx(float(trained[j]))] == [9]
    focus = made.method.focus
    assert focus is not None
    assert focus.scale is not None
    assert focus.pooled == 128
    found = focus.scale(torch.tensor([[0.44, 1, 2, 3, 4, 5, 6]], dtype=torch.float64))[0]
    released = [1.3, 1.2617, 1.2035, 1.1582, 1.1259, 1.1065, 1.1]
    assert found.tolist() == pytest.approx(released, abs=5e-5)


def test_flux_is_guided_from_its_native_pass(folders: dict[str, Path]) -> None:
    for name, kind in (("resolution", Resolution), ("view", View)):
        made = planned(f"flux-ultraimage-{name}", folders)
        assert isinstance(made.method.guide, kind)
        native, full = made.stages
        assert (made.size(0), made.size(1)) == ((1024, 1024), (3600, 3600))
        assert (native.guidance.embedded, full.guidance.embedded) == (3.5, 7.0)
        assert (native.table.shift, full.table.shift) == (3.0, 6.0)
        assert (native.num_steps, full.num_steps) == (30, 30)
    guide = made.method.guide
    assert isinstance(guide, View)
    assert guide.lasts(30) == 11


def test_flux_is_drawn_directly_with_the_constants_of_the_large_pass(
    folders: dict[str, Path],
) -> None:
    (only,) = planned("flux-ultraimage", folders).stages
    assert (only.guidance.embedded, only.table.shift, only.num_steps) == (7.0, 6.0, 30)
    assert only.levels[1].sigma == pytest.approx(shifted(29 / 30, 6.0), abs=1e-3)


def test_qwen_has_its_released_frequencies_and_guidance(folders: dict[str, Path]) -> None:
    made = planned("qwen-ultraimage", folders)
    slow = periods(made, QWEN_ROW)
    assert slow[8:10] == pytest.approx([269.28, 374.16], abs=0.01)
    assert slow[10] == pytest.approx(168.6, abs=0.05)
    (only,) = made.stages
    assert (only.guidance.scale, only.num_steps) == (4.0, 50)
    # The scheduler's own: mu of 65536 tokens on the line through 256 and 8192.
    mu = 0.5 + (0.9 - 0.5) / (8192 - 256) * (256**2 - 256)
    assert only.table.shift == pytest.approx(torch.tensor(mu).exp().item(), rel=1e-3)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_qwen_is_as_large_as_its_classes_are_documented_to_be(part: str) -> None:
    """The control: FLUX, of as many heads, is not."""
    config = {k: v for k, v in QWEN[f"{part}/config.json"].items() if k[0] != "_"}
    # A number of an older version of the class, which no longer means anything.
    config.pop("pooled_projection_dim", None)
    kind = getattr(diffusers, QWEN[f"{part}/config.json"]["_class_name"])
    defaults = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items()}
    listed = {n: list(d) if isinstance(d, tuple) else d for n, d in defaults.items()}
    assert {name: listed[name] for name in config} == config
    flux = inspect.signature(diffusers.FluxTransformer2DModel.__init__).parameters
    assert listed.get("joint_attention_dim") != flux["joint_attention_dim"].default


def test_a_stage_may_change_how_many_prompts_are_evaluated_by_every_rank(
    folders: dict[str, Path],
) -> None:
    stages = [{"scale": 0.25, "guidance_scale": 1.0}, {"scale": 1.0}]
    sizes = {"height": 1024, "width": 1024, "method": "none", "method_options": {}}
    made = planned("flux-ultraimage", folders, **sizes, stages=stages)
    assert made.stages[0].guidance.num_halves == 1  # FLUX is told: it is one prompt anyway
    sdxl = configs_full.build("sdxl", folders["Qwen/Qwen-Image"].parent / "sdxl")
    fields = {"model": str(sdxl), **sizes, "stages": stages, "address": "auto"}
    made = plan(parse(fields))
    assert [stage.guidance.num_halves for stage in made.stages] == [1, 2]
    assert made.num_halves == 2
    with pytest.raises(PlanError, match=r"guidance_scale 1 evaluates 1 prompts and the render 2"):
        plan(parse(fields | {"workers": 2, "guidance_ranks": 2}))
