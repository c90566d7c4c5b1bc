"""Few steps: other schedulers as diffusers has them, and stages with LoRAs of their own."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from checkpoints.stock import stock
from contracts.gallery import Drawn, Gallery, differ, equal
from frieze.renderer import Event, FriezeError, RenderCancelledError, plan, render, resume
from frieze.renderer.sampling.solvers import stage_seed

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
SEED = 7


def parted(cases: Iterable[str], slow: set[str]) -> list[Any]:
    """The cases, of which those that are slow run in `make test-all` alone."""
    return [pytest.param(case, marks=pytest.mark.slow) if case in slow else case for case in cases]


LOG_3 = math.log(3)
# Layout, scheduler, changes of its config, and fields: as published few-step checkpoints need them.
SAMPLERS: dict[str, tuple[str, str | None, dict[str, Any], dict[str, Any]]] = {
    "LCM-LoRA of SDXL": ("sdxl", "LCMScheduler", {}, {"guidance_scale": 1.5}),
    "LCM-LoRA of SD1.5": ("sd15", "LCMScheduler", {}, {"guidance_scale": 1.0}),
    "SDXL-Lightning": (
        "sdxl",
        "EulerDiscreteScheduler",
        {"timestep_spacing": "trailing"},
        {"guidance_scale": 1.0},
    ),
    "Hyper-SD": (
        "sd15",
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "clip_sample": False},
        {"guidance_scale": 1.0},
    ),
    "Qwen-Image-Lightning": (
        "qwen",
        None,
        {"base_shift": LOG_3, "max_shift": LOG_3, "shift_terminal": None},
        {"true_cfg_scale": 1.0},
    ),
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("few"))


def drawn(gallery: Gallery, name: str, **fields: Any) -> Drawn:
    return gallery.fresh(name, seed=SEED, **fields)


@pytest.mark.parametrize("case", parted(SAMPLERS, {"LCM-LoRA of SD1.5"}))
def test_another_scheduler_steps_as_diffusers_does(gallery: Gallery, case: str) -> None:
    name, scheduler, options, fields = SAMPLERS[case]
    fields = fields | {"negative_prompt": None, "num_inference_steps": 4}
    asked = fields | {"scheduler": scheduler, "scheduler_options": options}
    latents, pixels = stock(gallery.checkpoint(name), **gallery.arguments(name) | asked)
    expected = Drawn(latents, np.uint8(np.round(np.clip(pixels, 0, 1) * 255)))
    equal(drawn(gallery, name, workers=2, **asked), expected)
    differ(drawn(gallery, name, **fields), expected)


# A later stage from pure noise is a picture of its own: one stage with its seed, drawn by hand.
STAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "flux": ("lora", {"true_cfg_scale": 1.0}, {}),
    "flux by two ranks": ("lora", {"scheduler": "FlowMatchLCMScheduler"}, {"workers": 2}),
    "flux in float8": ("lora", {}, {"storage_dtype": "float8_e4m3fn"}),
    "wan22": ("lora_2", {"guidance_scale": 1.0}, {"scheduler": "FlowMatchEulerDiscreteScheduler"}),
}


@pytest.mark.parametrize("case", parted(STAGES, {"flux in float8"}))
def test_a_stage_is_drawn_by_its_own_lora(gallery: Gallery, case: str) -> None:
    field, own, fields = STAGES[case]
    name = case.split()[0]
    fields = {"method": "none", "negative_prompt": None} | fields
    half, whole = (f"{gallery.lora(name)}={weight}" for weight in ("0.5", "1"))
    last = {"start": 1.0, "steps": 2, field: (half,)} | own
    staged = drawn(gallery, name, **fields, **{field: (whole,)}, stages=({"steps": 1}, last))
    by_hand = fields | own | {"num_inference_steps": 2, "seed": stage_seed(SEED, 1)}
    alone = gallery.fresh(name, **by_hand, **{field: (half,)})
    assert np.array_equal(staged.pixels_THWC, alone.pixels_THWC)
    assert bool((staged.latents_CTHW == alone.latents_CTHW).all())
    differ(staged, gallery.fresh(name, **by_hand, **{field: (whole,)}))


def test_loras_come_and_go_between_stages_and_stops(gallery: Gallery, tmp_path: Path) -> None:
    """One, none, and the same again, stopped in each of the later stages: the same bytes."""
    lora = {"lora": (gallery.lora("sdxl"),)}
    few = {"scheduler": "LCMScheduler", "guidance_scale": 1.0, "steps": 2}
    stages = (
        {"scale": 0.5, "steps": 2, **lora},
        {"scale": 1.0, "start": 0.7, "steps": 3},
        {"scale": 1.0, "start": 0.5, **few, **lora},
    )
    fields = {"method": "none", "height": 320, "width": 128, "stages": stages, "seed": SEED}
    whole = gallery.fresh("sdxl", **fields)
    out = tmp_path / "a.zarr"
    stop_in(gallery.spec("sdxl", **fields, out=str(out)), 2)
    stop_in(out, 3)
    resume(out)
    found = gallery.opened("sdxl", out)
    assert np.array_equal(found.pixels_THWC, whole.pixels_THWC)
    equal(gallery.fresh("sdxl", **fields, workers=2), whole)
    differ(gallery.fresh("sdxl", **fields | {"stages": (stages[0], *plain(stages[1:]))}), whole)


def plain(stages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    return tuple({k: v for k, v in stage.items() if k != "lora"} for stage in stages)


def stop_in(what: Any, stage: int) -> None:
    """Render, or go on, until the first step of a stage is done."""
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and event.stage == stage:
            cancel.set()

    draw = resume if isinstance(what, Path) else render
    with pytest.raises(RenderCancelledError):
        draw(what, on_event=listen, cancel=cancel)


def test_a_plan_counts_the_weights_that_stages_exchange(gallery: Gallery) -> None:
    """In host memory, and none where the picture has one LoRA throughout."""
    lora = {"lora": (gallery.lora("flux"),)}
    stages = ({"steps": 1}, {"start": 0.5, "steps": 2, **lora})
    fields = {"method": "none", "negative_prompt": None}
    exchanged = plan(gallery.spec("flux", **fields, stages=stages))
    once = plan(gallery.spec("flux", **fields, **lora, stages=plain(stages)))
    changed = exchanged.estimate.host - once.estimate.host
    assert 0 < changed < exchanged.estimate.parts["transformer"]
    assert exchanged.estimate.weights == once.estimate.weights
    half = plan(gallery.spec("flux", **fields, stages=stages, storage_dtype="float8_e4m3fn"))
    assert half.estimate.host == once.estimate.host


def test_a_lora_of_a_text_encoder_is_refused_where_stages_differ(
    gallery: Gallery, tmp_path: Path
) -> None:
    file = tmp_path / "text.safetensors"
    save_file({"text_encoder.a.lora_A.weight": torch.zeros(2, 4)}, file)
    stages = ({"steps": 1}, {"start": 0.5, "lora": (str(file),)})
    with pytest.raises(
        FriezeError, match="changes a text encoder, and prompts are encoded once"
    ) as told:
        plan(gallery.spec("flux", method="none", negative_prompt=None, stages=stages))
    assert "\n" not in str(told.value)
