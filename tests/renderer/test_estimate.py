"""What a plan says a render needs is what it needs: tiny models on CPU, measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from checkpoints import PIPELINES
from contracts.gallery import Gallery
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band
from frieze.cluster.live_bytes import LiveBytes
from frieze.kernels.workspace import workspace
from frieze.renderer import loaded, trace
from frieze.renderer.estimate import GIB, Estimate, fits, remedies
from frieze.renderer.family import Conditioning, describe, family_names, load_family
from frieze.renderer.plan import CanvasPlan, plan
from frieze.renderer.shard import Shard
from frieze.renderer.sources import Source
from frieze.renderer.spec import RenderSpec
from memory import peak_bytes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLOSE = 0.1  # what a plan promises
DEMO: dict[str, Any] = {"height": 256, "width": 256, "num_inference_steps": 2, "device": "cpu"}
FRAME = {"image": Source("frame.png", "", 1, 64, 64)}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


def planned(spec: RenderSpec) -> CanvasPlan:
    takes_image = describe(spec.model).takes_image
    return plan(spec, sources=FRAME if takes_image else {})


def estimated(made: CanvasPlan) -> Estimate:
    return trace.estimate(
        made.facts,
        made.spec,
        made.stages,
        made.mesh,
        guidance=made.guidance,
        positions=made.method.positions,
        rows_per_block=made.block[0],
    )


def conditioning(made: CanvasPlan) -> Conditioning:
    shapes = load_family(made.facts.family).text_shapes(made.facts, made.spec)
    dtype = getattr(torch, made.spec.dtype)
    half = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    return Conditioning((half,) * made.guidance.num_halves)


def size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


class Measured(Shard):
    """A worker without a store, whose first frame, if it has one, is black."""

    def __init__(self, made: CanvasPlan, comm: Comm, tensors: Conditioning) -> None:
        super().__init__(made, "", None)
        self.join(comm)
        self.model = loaded.model(made.facts, made.spec, torch.device("cpu"))
        self.condition(tensors)
        self.halves = tensors.halves

    def _from_store(
        self, array: int, source_index: int, slot: int, rows: Band, factor: int | None
    ) -> Tensor:
        width = self._stage.canvas.width * self.plan.facts.latent.downscale
        return torch.zeros(1, 3, 1, rows.rows, width)

    def peaks(self) -> tuple[int, int]:
        """Bytes of denoising and of decoding, without weights."""
        last = len(self.plan.stages) - 1
        self._enter(last)
        image = size(*self.image.values())
        self._image_condition = lambda: self.image  # type: ignore[method-assign]
        text = size(*(x for half in self.halves for x in half.values())) + image
        denoise = self.peak(self._steps)
        state = size(self.x_BCTHW, *self.history)
        decode = self.peak(lambda: [None for _ in self._decoded(last, self.plan.block[0])])
        return denoise + text, decode + state + text

    def _steps(self) -> None:
        self.begin(0, None)
        for index in range(self.plan.stages[0].num_steps):
            self.step(index)

    def peak(self, work: Any) -> int:
        """By torch's allocator where one rank is all, else by a count of this rank's tensors."""
        if self.comm.size == 1 and not self.plan.spec.storage_dtype:
            return peak_bytes(work)
        live = LiveBytes(workspace)
        live.adopt(x for network in vars(self.model).values() if isinstance(network, nn.Module) for x in network.parameters())
        with live:
            work()
        return live.peak.num_bytes


def measured(made: CanvasPlan) -> list[tuple[int, int]]:
    tensors = conditioning(made)
    return run_threads(
        lambda comm: Measured(made, comm, tensors).peaks(), made.spec.workers, timeout=120.0
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 512, "dtype": "bfloat16"},
        {"height": 384, "true_cfg_scale": 2.0, "negative_prompt": "grey"},
    ],
    ids=["square", "wide-bfloat16", "tall-guided"],
)
def test_the_demo_needs_what_its_plan_says(changes: dict[str, Any], workers: int) -> None:
    made = planned(RenderSpec(**(DEMO | {"workers": workers, "chunk": 64} | changes)))
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)


@pytest.mark.parametrize("mesh", [{"ulysses": 2}, {"guidance_ranks": 2}, {"ulysses": 4}])
def test_so_it_does_on_every_mesh(mesh: dict[str, int]) -> None:
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "grey"}
    made = planned(RenderSpec(**(DEMO | {"workers": 4, "chunk": 64} | guided | mesh)))
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)


def test_layers_that_are_cast_need_room_for_both() -> None:
    made = planned(RenderSpec(**DEMO, storage_dtype="float8_e4m3fn", dtype="bfloat16"))
    needed, ((denoise, decode),) = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(denoise, rel=CLOSE)
    assert needed.decode == pytest.approx(decode, rel=CLOSE)


LAYOUTS = [n for n, pipeline in PIPELINES.items() if any(pipeline in load_family(f).pipelines for f in family_names())]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_family_needs_what_its_plan_says(gallery: Gallery, name: str, workers: int) -> None:
    # Where tensors are tiny, torch's own choices jump with their sizes.
    drawn = gallery.arguments(name)
    larger = {side: 2 * drawn[side] for side in ("height", "width")}
    made = planned(gallery.spec(name, workers=workers, device="cpu", image=None, **larger))
    needed, peaks = estimated(made), measured(made)
    print(name, workers, needed, peaks, needed.denoise/max(peak for peak, _ in peaks), needed.decode/max(peak for _, peak in peaks))
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
    assert needed.decode == pytest.approx(max(peak for _, peak in peaks), rel=CLOSE)
