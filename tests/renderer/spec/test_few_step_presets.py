"""Few-step presets: each has the noise levels of its source, and is refused where it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from checkpoints.lora import build_lora
from frieze.renderer.errors import FriezeError
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.sampling.timestep_shift import shifted
from frieze.renderer.spec.presets import PRESETS, preset, preset_names
from frieze.renderer.spec.render_spec import parse

# A tiny checkpoint of the same pipeline, the solver, and timesteps, or sigmas of a flow.
PUBLISHED: dict[str, tuple[str, str, list[float]]] = {
    "flux-schnell": ("flux-schnell", "euler", [1, 0.75, 0.5, 0.25]),
    "flux2-klein": ("flux2", "euler", []),
    "sdxl-turbo": ("sdxl-turbo", "ancestral", [999]),
    "sd-turbo": ("sd21", "euler", []),
    "z-image-turbo": ("zimage", "euler", []),
    "qwen-lightning": ("qwen", "euler", [shifted(1 - i / 8, 3.0) for i in range(8)]),
    "sdxl-lcm": ("sdxl", "lcm", [999, 759, 499, 259]),
    "sd15-lcm": ("sd15", "lcm", [999, 759, 499, 259]),
    "wan-lightx2v": ("wan", "lcm", [shifted(t, 5.0) for t in (1, 0.75, 0.5, 0.25)]),
    "wan22-lightx2v": ("wan22", "euler", [shifted(t, 5.0) for t in (1, 0.75, 0.5, 0.25)]),
}
WITH_LORA = [name for name in PUBLISHED if "lora" in preset(name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("few")


def planned(name: str, folder: Path, **changes: Any) -> CanvasPlan:
    """The preset on a tiny checkpoint of its pipeline, small."""
    layout, values = PUBLISHED[name][0], preset(name)
    model = folder / layout
    if not model.exists():
        checkpoints.build(layout, model)
        if layout == "flux2":  # klein, as it is published
            index = json.loads((model / "model_index.json").read_text())
            (model / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}))
    small = {"model": str(model), "height": 96, "width": 64, "dtype": "float32"}
    if "num_frames" in values:
        small["num_frames"] = 5
    if "lora" in values and "lora" not in changes:
        file = folder / f"{layout}-lora"
        found = next(file.glob("*"), None) if file.exists() else build_lora(model, file)
        small["lora"] = (str(found),)
        small |= {"lora_2": (str(found),)} if "lora_2" in values else {}
    return plan(parse(values | small | changes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_has_the_levels_of_its_source(folder: Path, name: str) -> None:
    made = planned(name, folder)
    _, solver, expected = PUBLISHED[name]
    (only,) = made.stages
    assert only.schedule.solver == solver
    assert only.num_steps == preset(name)["num_inference_steps"]
    assert only.guidance.num_halves == 1
    flow = only.schedule.flow
    levels = [level.sigma if flow else level.timestep for level in only.levels[:-1]]
    if expected:
        assert levels == pytest.approx(expected, abs=1e-6)
        more = planned(name, folder, num_inference_steps=made.spec.num_inference_steps + 1)
        assert len(more.stages[0].levels) == len(levels) + 2


def test_each_says_its_source() -> None:
    few = {n for n in preset_names() if preset(n).get("num_inference_steps", 20) <= 8}
    assert few - {n for n in few if "method" in preset(n)} == set(PUBLISHED)
    source = re.compile(r"diffusers|github\.com|arXiv|model card")
    for name in PUBLISHED:
        assert source.search((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")), name


@pytest.mark.parametrize("name", WITH_LORA)
def test_a_lora_that_is_not_there_is_told_before_any_work(folder: Path, name: str) -> None:
    with pytest.raises(FriezeError, match="no LoRA file") as told:
        planned(name, folder, lora=preset(name)["lora"])
    assert preset(name)["lora"][0] in str(told.value)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("sdxl-lcm", {"num_inference_steps": 51}, "51 steps of LCMScheduler .* at most 50 work"),
        ("sdxl-lcm", {"shift": 3.0}, "LCMScheduler has no timestep shift; leave it out"),
        ("sdxl-lcm", {"scheduler": "FlowMatchLCMScheduler"}, "no rectified flow; use DDIMSch"),
        ("flux-schnell", {"scheduler": "LCMScheduler"}, "a rectified flow; use FlowMatchEuler"),
        ("flux-schnell", {"scheduler": "NoSuchScheduler"}, "'NoSuchScheduler'"),
        ("sdxl-lcm", {"scheduler_options": {"spacing": 1}}, "'spacing' = 1: LCMScheduler has"),
        ("sdxl-lcm", {"scheduler_options": {"prediction_type": "sample"}}, "LCMScheduler has"),
        ("sdxl-lcm", {"scheduler_options": {"clip_sample": True}}, "clip_sample is true"),
        ("qwen-lightning", {"scheduler_options": {"max_shift": "x"}}, "max_shift is 'x'"),
        (
            "sdxl-lcm",
            {"stages": [{"scale": 0.5}, {"start": 0.04, "steps": 4}], "height": 128},
            "4 steps of LCMScheduler from 0.04 .* at most 2 work",
        ),
    ],
)
def test_unsuitable_options_are_refused_in_one_line(
    folder: Path, name: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(FriezeError, match=told) as error:
        planned(name, folder, **changes)
    assert len(str(error.value)) < 1200
    assert "\n" not in str(error.value)
