"""Plans: bands, blocks and shifts decided, and what cannot be drawn refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from frieze.renderer.checkpoints.checkpoint import describe, find
from frieze.renderer.driver.workers import replanned
from frieze.renderer.errors import ModelError, PlanError, SpecError
from frieze.renderer.planning import devices
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.presets import preset
from frieze.renderer.spec.render_spec import RenderSpec, parse


def spec(**fields: Any) -> RenderSpec:
    return RenderSpec(prompt="a red sun over blue mountains at dusk", **fields)


def test_bands_cover_every_stage_and_end_on_block_borders() -> None:
    made = plan(spec(height=1024, width=768, method="pi", workers=3))
    assert [s.canvas.height for s in made.stages] == [32, 64, 128]
    for stage in made.stages:
        assert stage.bands[0].start == 0
        assert stage.bands[-1].stop == stage.canvas.height
        for above, below in zip(stage.bands, stage.bands[1:], strict=False):
            assert above.stop == below.start
            assert above.stop % stage.align == 0
    block_rows = made.block[0] // made.facts.latent.downscale
    assert all(band.start % block_rows == 0 for band in made.stages[-1].bands)


def test_the_table_says_bands_steps_shift_and_memory() -> None:
    made = plan(parse({**preset("demo-cascade"), "prompt": "x"}))
    assert "memory" not in str(made)  # nobody has asked yet
    assert made.estimate.bytes_per_device > made.estimate.weights > 0
    for part in ("1024 x 1024 px", "stage 3", "shift", "GiB on each device: text", "bands of"):
        assert part in str(made)


def test_a_range_of_workers_is_planned_for_the_fewest_with_blocks_for_the_most() -> None:
    made = plan(spec(height=512, width=512, workers="2..8"))
    assert len(made.stages[0].bands) == 2
    assert made.block[0] == 64
    assert "workers   2 (ring 2 x ulysses 1), up to 8 where there is room" in str(made)


def test_a_range_of_workers_is_refused_where_the_most_cannot_draw_every_stage() -> None:
    """Before any work: not when there is room for them, in the middle of it."""
    fields = {"height": 512, "width": 512, "method": "pi", "chunk": 16}
    plan(spec(**fields, workers="2..16"))
    with pytest.raises(PlanError, match=r"^a stage of 256 rows: .* into 32 bands .* at most 16"):
        plan(spec(**fields, workers="2..32"))


def test_a_plan_for_other_workers_keeps_the_blocks_and_shares_what_it_can() -> None:
    wide = plan(spec(height=512, width=512, workers=4, ulysses=4))
    narrow = replanned(wide, 3)
    assert (narrow.block, len(narrow.stages[0].bands)) == (wide.block, 3)
    assert (narrow.mesh.ring, narrow.mesh.ulysses) == (3, 1)
    assert replanned(wide, 2).mesh.ulysses == 2


def test_the_plain_method_has_one_stage_from_pure_noise() -> None:
    made = plan(spec(height=256, width=256))
    assert [s.start for s in made.stages] == [1.0]
    assert made.stages[0].num_steps == 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 250}, "height 250 is no multiple of 16, .* nearest that works is 256"),
        ({"width": 1000}, "width 1000 .* nearest that works is 992"),
        ({"height": 64, "width": 64, "workers": 5}, "5 workers are more than the 4 rows of 16"),
        ({"height": 64, "width": 64, "workers": "2..5"}, "5 workers are more than the 4 rows"),
        ({"workers": 3, "ulysses": 2}, "ulysses 2 does not divide 3 workers"),
        ({"negative_prompt": "fog"}, "negative_prompt 'fog': flux is guided without one"),
        ({"park": "disk"}, "park 'disk' is for bands of one process; use it with --local"),
        ({"chunk": 48}, "chunk 48 does not work; a power of two from 16 to 512"),
        ({"max_sequence_length": 600}, "max_sequence_length 600"),
        ({"height": 2**20, "width": 2**20}, "does not fit: it needs about .* draw a smaller"),
        ({"device_memory": 0.25}, "does not fit: decoding needs .* --workers 4 .* would do"),
        ({"stages": [{"scale": 0.5}]}, "the last stage has scale 0.5"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_would_work(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan(parse({"prompt": "x", **fields}))


def test_an_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"no 'magic' in methods; there are: .*none, .*pi"):
        plan(spec(method="magic"))


def test_an_unknown_model_path_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no model folder at './nowhere'"):
        plan(spec(model="./nowhere"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint to spoil."""
    return Path(shutil.copytree(find("demo"), tmp_path / "model"))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index.json is missing"):
        describe(str(tmp_path))


def test_a_foreign_pipeline_is_refused_and_the_known_ones_named(copied: Path) -> None:
    index = copied / "model_index.json"
    index.write_text(json.dumps({"_class_name": "MochiPipeline"}))
    with pytest.raises(ModelError, match=r"a MochiPipeline model; Frieze knows .*FluxPipeline"):
        describe(str(copied))


def test_broken_json_is_refused(copied: Path) -> None:
    (copied / "transformer" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"transformer.config.json cannot be read as JSON"):
        describe(str(copied))


def test_pickled_weights_are_refused(copied: Path) -> None:
    for file in (copied / "vae").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match="is a pickle and may run code"):
        describe(str(copied))


def test_missing_weights_are_refused(copied: Path) -> None:
    for file in (copied / "transformer").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match=r"transformer holds no .safetensors"):
        describe(str(copied))


def test_truncated_weights_are_refused(copied: Path) -> None:
    file = next((copied / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"is corrupt .*fetch it anew"):
        describe(str(copied))


def test_planning_imports_no_library_that_draws() -> None:
    code = (
        "import sys; from frieze.renderer import plan, RenderSpec;"
        "sizes = [(256, 256, 'auto'), (512, 512, 'auto'), (512, 1024, 'auto'), (512, 512, 'yarn')];"
        "[plan(RenderSpec(prompt='x', height=h, width=w, method=m)) for h, w, m in sizes];"
        "heavy = {'torch', 'ray', 'diffusers', 'transformers', 'zarr'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_family_and_method_is_described_without_torch() -> None:
    code = (
        "import sys; from frieze.renderer import plugins;"
        "kinds = ('families', 'methods');"
        "[plugins.load(kind, name) for kind in kinds for name in plugins.names(kind)];"
        "print({'torch', 'ray', 'diffusers', 'transformers', 'zarr'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_what_is_known_of_cuda_without_torch_is_what_torch_says() -> None:
    code = "from frieze.renderer.models import device; print(device.has_cuda())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(torch.cuda.is_available())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 5}, "num_frames 5: flux draws pictures; leave it at 1"),
        ({"image": "a.png"}, "image 'a.png': FluxPipeline starts from no frame; init redraws"),
        ({"mask": "a.png"}, "mask 'a.png': method 'auto' treats all regions alike; leave it out"),
        ({"guidance_ranks": 2, "workers": 2}, "guidance_ranks 2: there is one prompt"),
        (
            {"negative_prompt": "fog", "true_cfg_scale": 2, "guidance_ranks": 2, "workers": 3},
            "guidance_ranks 2 does not divide 3 workers",
        ),
        ({"device": "toaster"}, "device 'toaster' draws nothing; auto, cpu, cuda or cuda:0 works"),
        ({"quantization": "bnb-4bit"}, "needs a CUDA device"),
    ],
)
def test_what_a_family_or_a_device_lacks_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(parse({"prompt": "x", "height": 256, "width": 256, "device": "cpu", **fields}))


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "computes", lambda kind, dtype: False)
    with pytest.raises(PlanError, match="dtype 'float16' is not computed by cpu here"):
        plan(spec(height=256, width=256, device="cpu", dtype="float16"))


def test_twins_share_a_band_and_keep_half_of_it_each() -> None:
    made = plan(
        spec(
            method="none",
            height=512,
            width=256,
            workers=4,
            guidance_ranks=2,
            negative_prompt="fog",
            true_cfg_scale=2.0,
        )
    )
    (stage,) = made.stages
    assert [(b.start, b.stop) for b in stage.bands] == [(0, 32), (32, 64)]
    assert [(s.start, s.stop) for s in stage.shares] == [(0, 16), (16, 32), (32, 48), (48, 64)]
    assert (made.guidance.scale, made.guidance.num_halves) == (2.0, 2)


@pytest.mark.parametrize("method", ["ntk", "yarn", "eaac", "rdfc"])
def test_rotary_methods_are_refused_where_nothing_is_rotated(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = dataclasses.replace(describe("demo"), rotary=False, family="sd3")
    monkeypatch.setattr(sys.modules[plan.__module__], "describe", lambda *_: facts)
    with pytest.raises(PlanError, match=f"method '{method}' is for rotary positions, and sd3"):
        plan(spec(height=256, width=256, method=method))
    plan(spec(height=256, width=256, method="pi"))
    plan(spec(height=512, width=256, method="auto"))


def test_a_method_asked_for_a_size_that_the_model_knows_is_warned_of() -> None:
    told = "warning   method rdfc changes nothing up to the trained 256 px"
    assert told in str(plan(spec(height=128, width=256, method="rdfc")))
    for fields in ({"height": 128, "method": "none"}, {"height": 288, "method": "rdfc"}):
        assert "warning" not in str(plan(spec(width=256, **fields)))


def test_an_init_that_leaves_no_trace_is_warned_of(tmp_path: Path) -> None:
    """Stock pipelines round steps of flow Euler up: 0.8 of 3 are all three, from noise alone."""
    picture, mask = tmp_path / "a.png", tmp_path / "mask.png"
    Image.new("RGB", (256, 256)).save(picture)
    Image.new("L", (256, 256)).save(mask)
    asked = {"height": 256, "width": 256, "init": str(picture), "num_inference_steps": 3}
    told = "warning   strength 0.8 of 3 steps begins with noise alone"
    assert told in str(plan(spec(**asked, strength=0.8)))
    for fields in ({"strength": 0.6}, {"strength": 0.8, "mask": str(mask)}):
        assert "warning" not in str(plan(spec(**asked, **fields)))


def test_tiles_that_are_none_are_warned_of() -> None:
    told = "warning   strategy tiles: what is denoised is no larger than a tile, drawn whole"
    asked = {"width": 512, "strategy": "tiles", "method": "pi"}
    for fields in ({"width": 256}, {"decoder": "infgen"}):
        assert told in str(plan(spec(height=256, **asked | fields)))
    assert "warning" not in str(plan(spec(height=256, **asked)))
