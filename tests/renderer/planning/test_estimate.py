"""What a plan says a render needs is what it needs: tiny models on CPU, measured."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import configs_full
from checkpoints import PIPELINES
from contracts.gallery import Gallery
from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.meta_attention import tracing
from frieze.kernels.operator_workspace import workspace
from frieze.renderer.checkpoints.checkpoint import describe, family_names, load_family
from frieze.renderer.errors import PlanError
from frieze.renderer.inputs.sources import Source
from frieze.renderer.models.meta_models import shorten
from frieze.renderer.planning import memory_trace
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.estimate import Estimate, fits
from frieze.renderer.planning.memory_check import MARGIN, roughly
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec
from support.memory import peak_bytes
from support.planned_memory import CLOSE, estimated, measured, planned

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.long,
]
DEMO: dict[str, Any] = {"height": 256, "width": 256, "num_inference_steps": 2, "device": "cpu"}
# Without AVX-512 convolutions of 16 bits take a minute.
IS_FAST = "AVX512" in torch.backends.cpu.get_cpu_capability()
WIDE: dict[str, Any] = {"width": 512} if IS_FAST else {"height": 128, "width": 144}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


HALF = WIDE | {"dtype": "bfloat16"}
TALL = {"height": 384, "width": 128, "true_cfg_scale": 2.0, "negative_prompt": "grey"}


@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        pytest.param({}, 1, id="square-1"),
        pytest.param({}, 2, id="square-2", marks=pytest.mark.slow),
        pytest.param({}, 3, id="square-3", marks=pytest.mark.slow),  # tall-3 is of as many
        pytest.param(HALF, 1, id="wide-half-1", marks=pytest.mark.slow),
        # In `make test` what is cast is of 16 bits.
        pytest.param(HALF, 2, id="wide-half-2", marks=pytest.mark.slow),
        pytest.param(TALL, 1, id="tall-1", marks=pytest.mark.slow),
        pytest.param(TALL, 3, id="tall-3"),
    ],
)
def test_the_demo_needs_what_its_plan_says(changes: dict[str, Any], workers: int) -> None:
    made = planned(RenderSpec(**(DEMO | {"workers": workers, "chunk": 64} | changes)))
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_edits_need_what_their_plan_says(workers: int) -> None:
    edit = ("a.png=a moon", "b.png=a lighthouse")
    spec = RenderSpec(**(DEMO | {"workers": workers, "chunk": 64}), edit=edit)
    made, plain = planned(spec), planned(spec.model_copy(update={"edit": ()}))
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.denoise > estimated(plain).denoise


@pytest.mark.parametrize(
    "mesh",
    [
        {"ulysses": 2, "guidance_ranks": 2},
        *(
            pytest.param({axis: n}, marks=pytest.mark.slow)
            for axis, n in (("ulysses", 2), ("ulysses", 4), ("guidance_ranks", 2))
        ),
    ],
)
def test_so_it_does_on_every_mesh(mesh: dict[str, int]) -> None:
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "grey"}
    small = {"workers": 4, "chunk": 64, "width": 128, "num_inference_steps": 1}
    made = planned(RenderSpec(**(DEMO | small | guided | mesh)))
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)


def test_layers_that_are_cast_need_room_for_both() -> None:
    small = DEMO | {"height": 128, "width": 128}
    made = planned(RenderSpec(**small, storage_dtype="float8_e4m3fn", dtype="bfloat16"))
    needed, ((denoise, decode),) = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(denoise, rel=CLOSE)
    assert needed.decode == pytest.approx(decode, rel=CLOSE)


SERVED = {pipeline for family in family_names() for pipeline in load_family(family).pipelines}
LAYOUTS = [name for name, pipeline in PIPELINES.items() if pipeline in SERVED]
# One of each network and decoder. In `make test` one of each kind, on one rank or on three.
DISTINCT = ("flux2", "qwen", "sd15", "sd3", "sdxl", "wan22-i2v", "wan", "zimage")
QUICK = {("flux2", 1), ("sdxl", 1), ("wan22-i2v", 1), ("wan", 3)}
RANKS = [
    pytest.param(name, n, marks=[] if (name, n) in QUICK else [pytest.mark.slow])
    for n in (1, 3)
    for name in DISTINCT
]


@pytest.mark.parametrize(("name", "workers"), RANKS)
def test_every_family_needs_what_its_plan_says(gallery: Gallery, name: str, workers: int) -> None:
    # Where tensors are tiny, torch's own choices jump with their sizes.
    larger = {side: 2 * gallery.arguments(name)[side] for side in ("height", "width")}
    spec = gallery.spec(name, workers=workers, device="cpu", image=None, method="none", **larger)
    made = planned(spec)
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)
    assert MARGIN * roughly(made) > needed.bytes_per_device


@pytest.mark.parametrize("name", LAYOUTS)
def test_prompts_have_the_shapes_stated(gallery: Gallery, name: str) -> None:
    spec = gallery.spec(name, image=None)
    facts = describe(spec.model)
    frame = np.zeros((spec.height, spec.width, 3), np.float32) if facts.takes_image else None
    family = load_family(facts.family)
    (half,) = family.encode(facts, spec, torch.device("cpu"), 1, frame).halves
    stated = family.text_shapes(facts, spec)
    assert half.keys() == stated.keys()
    for key, tensor in half.items():
        assert len(tensor.shape) == len(stated[key])
        assert all(real <= most for real, most in zip(tensor.shape, stated[key], strict=True))


def test_control_the_band_of_another_rank_is_another_answer() -> None:
    made = planned(RenderSpec(**DEMO, workers=3, chunk=64))
    traced = memory_trace.MemoryTrace(made.facts, made.spec, made.mesh, made.guidance, made.method)
    (plain,) = traced.step_kinds(0, made.stages[0])
    short, tall = (traced.denoise(made.stages[0], rank, plain).num_bytes for rank in (0, 1))
    assert made.stages[0].bands[0].rows < made.stages[0].bands[1].rows
    assert short != pytest.approx(tall, rel=CLOSE)


def test_a_cascade_is_traced_at_its_largest_stage_and_needs_the_most_of_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = {"height": 768, "width": 512}
    made = planned(RenderSpec(**{**DEMO, **size}, workers=2, method="pi"))
    assert len(made.stages) > 2
    each = [estimated(dataclasses.replace(made, stages=(stage,))) for stage in made.stages]
    traced: list[int] = []
    denoise = memory_trace.MemoryTrace.denoise

    def watched(self: memory_trace.MemoryTrace, stage: Any, rank: int, kind: Any) -> Any:
        traced.append(made.stages.index(stage))
        return denoise(self, stage, rank, kind)

    monkeypatch.setattr(memory_trace.MemoryTrace, "denoise", watched)
    whole = estimated(made)
    assert set(traced) == {len(made.stages) - 1}
    assert whole.denoise == max(one.denoise for one in each) > min(one.denoise for one in each)
    assert whole.decode == max(one.decode for one in each)
    assert whole.encode > max(one.encode for one in each) == 0


def test_equal_layers_that_are_stood_in_for_change_no_peak() -> None:
    from diffusers import FluxTransformer2DModel

    def peak(shortened: bool) -> int:
        with torch.device("meta"):
            network = FluxTransformer2DModel(
                num_layers=5,
                num_single_layers=6,
                attention_head_dim=16,
                num_attention_heads=2,
                in_channels=16,
                joint_attention_dim=24,
                pooled_projection_dim=12,
                axes_dims_rope=(4, 6, 6),
            )
        calls = []
        for block in (*network.transformer_blocks, *network.single_transformer_blocks):
            block.attn.register_forward_hook(lambda *_: calls.append(1))
        if shortened:
            shorten(network)
        make = functools.partial(torch.empty, device="meta")
        with tracing("cpu"), LiveBytes(workspace) as live:
            network(
                hidden_states=make(1, 256, 16),
                timestep=make(1),
                pooled_projections=make(1, 12),
                encoder_hidden_states=make(1, 9, 24),
                txt_ids=make(9, 3),
                img_ids=make(256, 3),
            )
        assert len(calls) == (6 if shortened else 11)
        return live.peak.num_bytes

    assert peak(True) == peak(False)


# ---- full sizes


# In one stage: the last one is what a cascade needs most for, and the others cost time to trace.
SIZES: dict[str, dict[str, Any]] = {
    "flux1": {"height": 8192, "width": 8192, "method": "none"},
    "sdxl": {"height": 8192, "width": 8192, "method": "none"},
    "wan14b": {"height": 2160, "width": 3840, "num_frames": 81, "method": "none"},
}
# Billions of the denoiser's parameters, as published.
PARAMETERS = {"flux1": 11.9, "sdxl": 2.57, "wan14b": 14.29}
DENOISER = {"flux1": "transformer", "sdxl": "unet", "wan14b": "transformer"}
# Devices of 141, 80 and 24 GB that hold the render, by workers.
FITTING = {
    "flux1": {1: (), 2: (141,), 4: (141, 80), 8: (141, 80)},
    "sdxl": {1: (), 2: (), 4: (141,), 8: (141, 80)},
    "wan14b": {1: (), 2: (), 4: (141,), 8: (141, 80)},
}


def on_cuda(made: CanvasPlan) -> Estimate:
    """What CUDA devices would need; there need not be any."""
    spec = made.spec.model_copy(update={"device": "cuda"})
    return estimated(dataclasses.replace(made, spec=spec))


# One of the transformers in `make test`; a UNet of full size takes a minute to run on meta.
FULL = [
    pytest.param("flux1", (1, 8)),
    *(pytest.param(name, (1, 2, 4, 8), marks=pytest.mark.slow) for name in SIZES),
]


@pytest.mark.parametrize(("name", "counts"), FULL)
def test_full_sizes_are_planned_by_part(name: str, counts: tuple[int, ...], tmp_path: Path) -> None:
    folder = str(configs_full.build(name, tmp_path))
    spec = RenderSpec(model=folder, dtype="bfloat16", address="auto", **SIZES[name])
    needed = {}
    for workers in counts:
        made = plan(spec.model_copy(update={"workers": workers}))
        needed[workers] = on_cuda(made)
        assert MARGIN * roughly(made) > needed[workers].bytes_per_device
        reasons = {gb: fits(needed[workers], gb * 10**9) for gb in (141, 80, 24)}
        assert tuple(gb for gb, why in reasons.items() if why is None) == FITTING[name][workers]
        assert all("GiB on each device" in why for why in reasons.values() if why)
    for few, many in itertools.pairwise(counts):
        assert needed[many].weights == needed[few].weights
        assert needed[many].denoise < needed[few].denoise
        assert needed[many].decode < needed[few].decode
    assert needed[1].in_flight == 0 < needed[8].in_flight + (name == "sdxl")
    # Norms and the like may be wider than bfloat16.
    weights = needed[1].parts[DENOISER[name]] / 2e9
    assert weights == pytest.approx(PARAMETERS[name], rel=0.01)


def test_a_plan_for_devices_that_it_does_not_fit_is_refused(tmp_path: Path) -> None:
    spec = RenderSpec(
        model=str(configs_full.build("flux1", tmp_path)),
        dtype="bfloat16",
        device="cuda",
        device_memory=74.5,
        workers=2,
        **SIZES["flux1"],
    )
    with pytest.raises(PlanError, match=r"decoding needs .* GiB on each device"):
        plan(spec)


def test_a_clip_to_redraw_counts_whether_or_not_the_model_could_animate_a_frame(
    gallery: Gallery,
) -> None:
    clip = Source("clip.mp4", "", 17, 64, 64)
    spec = gallery.spec("wan22-small", num_frames=17, init="clip.mp4", device="cpu")
    made = plan(spec, sources={"init": clip})
    model = load_family("wan").load(made.facts, spec, torch.device("cpu"))
    size = (17, spec.height, spec.width)
    pixels = torch.zeros(1, 3, *size)
    own = pixels.numel() * pixels.element_size()
    assert estimated(made).encode == pytest.approx(
        own + peak_bytes(lambda: model.encoded(pixels)), rel=CLOSE
    )
    first = peak_bytes(lambda: model.encoded(pixels[:, :, :1]))
    assert first < 0.5 * estimated(made).encode


def test_workers_of_one_device_share_its_weights_and_leave_it_when_parked() -> None:
    needed = Estimate(weights=10, denoise=5, decode=7, text=3)
    assert needed.bytes_per_device == 17
    assert needed.together(3) == 10 + 3 * 7
    assert needed.together(3, parked=True) == 17
