"""What a plan says a render needs, and what a worker without a store holds of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band
from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.operator_workspace import workspace
from frieze.renderer.checkpoints.checkpoint import describe, load_family
from frieze.renderer.extrapolation.network_hooks import hook_method
from frieze.renderer.inputs.sources import Source
from frieze.renderer.models.family import Conditioning
from frieze.renderer.planning import memory_trace
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.estimate import Estimate
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.worker import model_cache
from frieze.renderer.worker.shard import Shard
from frieze.renderer.worker.stage_rows import StageRows
from frieze.renderer.worker.stage_start import StageStart
from support.memory import peak_bytes
from tolerances import AMPLE

CLOSE = 0.1  # what a plan promises
FRAME = {"image": Source("frame.png", "", 1, 64, 64)}


def planned(spec: RenderSpec) -> CanvasPlan:
    takes_image = describe(spec.model).takes_image
    return plan(spec, sources=FRAME if takes_image else {})


def estimated(made: CanvasPlan) -> Estimate:
    return memory_trace.estimate(
        made.facts,
        made.spec,
        made.stages,
        made.mesh,
        guidance=made.guidance,
        method=made.method,
        rows_per_block=made.block[0],
    )


def conditioning(made: CanvasPlan) -> Conditioning:
    shapes = load_family(made.facts.family).text_shapes(made.facts, made.spec)
    dtype = getattr(torch, made.spec.dtype)
    half = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    return Conditioning((half,) * made.guidance.num_halves)


def size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


class Black(StageRows):
    """Stored pictures are black, and masks of edits the same grey everywhere."""

    def read(self, array: int, source: int, slot: int, rows: Band, factor: int | None) -> Tensor:
        width = self.plan.stages[self.stage_index].canvas.width * self.plan.facts.latent.downscale
        return torch.zeros(1, 3, 1, rows.rows, width)

    def masks(self) -> Tensor | None:
        stage = self.plan.stages[self.stage_index]
        sides = (stage.canvas.height, stage.canvas.width)
        return torch.full((len(stage.edits), *sides), 0.3) if stage.edits else None


class Measured(Shard):
    """A worker without a store, whose first frame, if it has one, is black."""

    def __init__(self, made: CanvasPlan, comm: Comm, tensors: Conditioning) -> None:
        super().__init__(made, "", None)
        self.join(comm)
        self.set_plan(made)
        self.model = model_cache.model(made.facts, made.spec, torch.device("cpu"))
        hook_method(self.model, made.method)
        for prompt in made.prompts:
            self.condition(tensors, prompt)
        edits = len(made.stages[-1].edits)
        self.halves = (*tensors.halves, *tensors.halves[:1] * edits)

    @property
    def _saved(self) -> StageRows:
        nowhere: Any = None
        place = (self.stage_index, self._band, self._share)
        return Black(self.plan, nowhere, *place, self.device)

    @property
    def _stage_start(self) -> StageStart:
        """A first frame is encoded once, before what is measured: plans count it apart."""
        start, image = super()._stage_start, self.image
        if image:
            object.__setattr__(start, "image_condition", lambda place: image)
        return start

    def peaks(self) -> tuple[int, int]:
        """Bytes of denoising and of decoding, without weights."""
        last = len(self.plan.stages) - 1
        self._enter(last)
        image = size(*self.image.values())
        text = size(*(x for half in self.halves for x in half.values())) + image
        denoise = self.peak(self._steps)
        state = size(self.x_BCTHW, *self.history)
        decode = self.peak(lambda: [None for _ in self._pieces.decoded(self.plan.block[0])])
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
        networks = [part for part in vars(self.model).values() if isinstance(part, nn.Module)]
        live.adopt(x for network in networks for x in network.parameters())
        with live:
            work()
        return live.peak.num_bytes


def measured(made: CanvasPlan) -> list[tuple[int, int]]:
    tensors = conditioning(made)
    return run_threads(
        lambda comm: Measured(made, comm, tensors).peaks(), made.spec.workers, timeout=AMPLE
    )
