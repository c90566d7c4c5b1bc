"""One rank's share of a render: a plain class that a fleet places on a device.

Everything it holds between verbs is in canvas coordinates and can be read back from the store,
so a shard can be replaced, or the canvas cut anew, between any two steps.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from frieze.cluster.comm import Comm, axis_comms
from frieze.cluster.layout import Band

from ..autoencoders.decoding import quantise
from ..events import StepReport
from ..exports import sinks
from ..extrapolation.network_hooks import hook_method
from ..files.location import Location
from ..models import finite
from ..models.family import Conditioning
from ..models.regional_prompts import RegionalPrompts
from ..planning.canvas_plan import CanvasPlan
from ..planning.stage_plan import StagePlan, num_cached
from ..sampling.resampling import noised_again
from ..sampling.solver_step import SolverStep
from ..sampling.solvers import noised, solver
from ..store import numerics
from ..store.store import Store
from ..watermarks import of_spec as mark_of
from . import guidance_pair, model_cache, precision
from .method_attention import Entropies, register_token_hook
from .network import Network, band_place
from .precision import exactly
from .stage_guides import Grid, StageGuide, at_work
from .stage_rows import StagePieces, StageRows
from .stage_start import Noise, StageStart
from .tensor_trace import Entry, TensorTrace
from .writers.blocks import BlockWriter
from .writers.states import Digests, StateWriter, StepMeter


class Shard:
    """Holds one band of the canvas on one device and advances it; see architecture in README."""

    def __init__(self, plan: CanvasPlan, store_path: Location, picture_path: str | None) -> None:
        self.plan = plan
        self.store_path = store_path
        self.picture_path = picture_path
        self.device = model_cache.device_of(plan.spec)
        self.solver = solver(plan.stages[0].schedule)
        self.conditioning: dict[str, Conditioning] = {}
        self.stage_index = -1
        self.x_BCTHW = torch.empty(0)
        self.history: tuple[Tensor, ...] = ()
        self.image: Mapping[str, Tensor] = {}  # what a picture adds to the conditioning
        self.saving = StateWriter()
        self.trace = TensorTrace(plan.spec.trace_digests)

    def join(self, comm: Comm) -> None:
        """Receive the communicator that the fleet made for this rank; a later one replaces it."""
        self.saving.drop()
        self.comm = comm
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def set_plan(self, plan: CanvasPlan) -> None:
        """Take up a plan for as many ranks as there are now; rows are restored after it.

        Two ranks with one band and a prompt each keep half of it each, in order of these shares.
        """
        self.plan = plan
        self.comms = axis_comms(self.comm, plan.mesh)
        self.pair, self.sharing = guidance_pair.groups(self.comm, plan.mesh)

    def load(self) -> dict[str, Any]:
        """Open the store and load the weights, once per process however many rank threads."""
        self.store = Store.open(self.store_path)
        self.model = model_cache.model(self.plan.facts, self.plan.spec, self.device)
        self.trace.take_weights(self.model)
        if self.plan.method.needs_spectrum:
            register_token_hook(self.model.embedders)
        hook_method(self.model, self.plan.method)
        return {"pid": os.getpid(), "device": str(self.device)}

    def condition(self, conditioning: Conditioning, prompt: str | None = None) -> None:
        """Receive a prompt, the picture's by default, and its negative, encoded."""
        prompt = self.plan.spec.prompt if prompt is None else prompt
        self.conditioning[prompt] = conditioning.on(self.device)

    @exactly
    def decode_stage(self) -> Digests:
        """Decode this stage's latents into the store, for the next stage to enlarge.

        Returns digests of the chunks that were written.
        """
        digests: Digests = {}
        array = self.plan.array(f"{self.stage_index}-picture")
        for piece in self._pieces.between():
            rows_CTHW = piece.pixels_BCTHW.clamp(-1, 1)[0].float().cpu().numpy()
            span = slice(piece.row, piece.row + rows_CTHW.shape[2])
            frames = slice(piece.frame, piece.frame + rows_CTHW.shape[1])
            digests |= self.store.save_latents(array, 0, span, rows_CTHW, frames=frames)
        return digests

    @exactly
    def begin(self, stage_index: int, from_slot: int | None) -> tuple[Digests, str]:
        """Noise for the first stage; for a later one the last stage, enlarged and noised anew.

        `from_slot` is where the last stage's final latents lie in the store; its picture is there
        too if this stage enlarges pixels. What the render redraws takes the place of a stage
        before the first. Returns digests of the latents that are kept for guidance, if there are
        any, and what is not finite, "" if all is.
        """
        self._enter(stage_index)
        noise, clean = self._draw_noise(), self._stage_start.clean(from_slot)
        first, scale = self._stage.levels[0], self._stage.table.scale
        self.x_BCTHW = noise * scale if clean is None else noised(clean, noise, first)
        digests = {} if clean is None else self._keep("guide", 0, clean)
        self._build_guide(noise, clean)
        self.x_BCTHW = self.guiding.left(0, self.x_BCTHW)
        self.trace.take("latents", self.x_BCTHW, self._band)
        return digests, self._fault({"the encoded picture": [] if clean is None else [clean]})

    @exactly
    def restore(
        self, stage_index: int, slot: int, step_index: int, computed: Sequence[int] = ()
    ) -> str:
        """Read this band's rows of a saved state, and when each half was `computed` last.

        Returns what is not finite, "" if all is.
        """
        self._enter(stage_index)
        noise, band = self._draw_noise(), self._band
        for _ in range(self._num_noises(step_index)):  # as were drawn: the next one is the same
            self._draw_noise()
        rows = self.store.load_latents(stage_index, slot, slice(band.start, band.stop))
        saved = self._to_device(torch.from_numpy(rows)).unsqueeze(0)
        self.x_BCTHW, *kept = saved.split(self.plan.facts.latent.channels, dim=1)
        if step_index < self._stage.num_steps:  # else it is needed no more
            self._build_guide(noise)
        first, last = self.solver.num_history, len(kept) - num_cached(self.plan.spec, self._stage)
        self.history, self.guiding.memory = tuple(kept[:first]), tuple(kept[first:last])
        self.network.inputs, self.network.computed = kept[last:], list(computed)
        self.trace.take("latents", self.x_BCTHW, self._band)
        return self._fault({"the saved state": [saved]})

    @exactly
    def step(self, step_index: int, slot: int | None = None) -> StepReport:
        """Advance this band by one interval between noise levels.

        Meanwhile the state that the step begins with is written into `slot`, if there is one; it
        is on disk when the step is done.
        """
        meter = StepMeter(self.comm, self.device)
        if slot is not None:
            with meter.saving():
                self._write_state(slot)
        clean = self._advance(step_index)
        kept = self._keep("clean", step_index, clean)
        fault = self._fault({"the model's estimate of the picture": [clean]})
        meter.synchronize()
        with meter.saving():
            state = self.saving.settle()
        return meter.report(fault, state, kept, self.network.computed)

    def _advance(self, index: int) -> Tensor:
        """Take this band to the next noise level; x0 as it was guided."""
        levels, before = self._stage.levels, self.history
        for left in reversed(range(self._stage.draws[index])):
            self.history = before
            clean = self._step(index)
            if left:  # what it drew fits what stays better, drawn again
                noise, between = self._draw_noise(), (levels[index], levels[index + 1])
                self.x_BCTHW = noised_again(self.x_BCTHW, *between, noise)
                self.x_BCTHW = self.guiding.left(index, self.x_BCTHW)
        return clean

    def _step(self, index: int) -> Tensor:
        """The same, drawn once."""
        world = self.comms.world
        self.trace.take("latents before", self.x_BCTHW, self._band)
        self.x_BCTHW = self.guiding.entered(index, self.x_BCTHW)
        grid = self.guiding.grid(index)
        clean = self.network.predict(self.x_BCTHW, index, grid)
        clean = grid.back(world, self.guiding.corrected(index, clean))
        self.trace.take("estimate, guided", clean, self._band)
        noise = self._draw_noise if self.solver.needs_noise else None
        self.x_BCTHW, self.history = self.solver.step(
            SolverStep(index, self._stage.levels, self.x_BCTHW, clean, self.history, noise)
        )
        self.x_BCTHW = self.guiding.left(index + 1, self.x_BCTHW)
        self.trace.take("latents", self.x_BCTHW, self._band)
        return clean

    def _fault(self, named: finite.Named) -> str:
        """What of this is not finite on some rank, of what is `named` or of the state; or ""."""
        image, memory = {"the first frame's latents": self.image.values()}, self._memory
        state = {"the latents": [self.x_BCTHW], "the memory of steps": memory}
        return finite.first_fault(self.comm, {**named, **image, **state})

    def traced(self) -> Mapping[str, Entry]:
        """Digests of what was taken and made since the last time, where the spec asks for them."""
        return self.trace.taken()

    def numerics(self) -> numerics.Numerics:
        """What decides this rank's last bits, so far as it is known by now."""
        return precision.numerics(self.plan.spec, self.device)

    def entropies(self) -> tuple[int, list[Entropies]]:
        """(its place in its pair, what the first step measured of its halves of the guidance)."""
        return self.pair.rank if self.pair else 0, self.network.entropies()

    def set_entropies(self, halves: Sequence[Entropies]) -> None:
        """Scale the heads of this stage by the entropies of all halves."""
        self.network.concentrate(halves)

    def save(self, slot: int) -> Digests:
        """Write this worker's latent rows, and what steps remember of them, into a slot.

        Returns digests of the chunks that were written.
        """
        self._write_state(slot)
        return self.saving.settle()

    def _write_state(self, slot: int) -> None:
        """Begin to write them."""
        parts = [self.x_BCTHW, *self._memory]
        write = functools.partial(self._saved.write, self.stage_index, slot)
        self.saving.start([self._shared(part)[0] for part in parts], write)

    @property
    def _memory(self) -> list[Tensor]:
        """What is saved with the latents, over the same rows."""
        return [*self.history, *self.guiding.memory, *self.network.inputs]

    def latents(self) -> tuple[int, Tensor]:
        """(first row, latents [C, T, H, W]) of this worker, for callbacks that ask for them."""
        return self._share.start, self._shared(self.x_BCTHW)[0].cpu()

    @exactly
    def decode(self) -> Iterator[dict[str, str]]:
        """Decode this band and write it, yielding blocks that are safely on disk: {id: digests}."""
        done, bits = self.store.done(), self.plan.spec.bits

        def is_done(frame: int, row: int) -> bool:
            return self.store.covers(done, row, frame if self.plan.frames else None)

        with BlockWriter(self.store, sinks(self.picture_path), mark_of(self.plan.spec)) as writer:
            for piece in self._pieces.finished(is_done):
                for frame, pixels_BCHW in enumerate(piece.pixels_BCTHW.unbind(2), piece.frame):
                    if not is_done(frame, piece.row):
                        pixels_HWC = quantise(pixels_BCHW, bits)
                        writer.put(piece.row, pixels_HWC, frame if self.plan.frames else None)
                if finished := writer.drain():
                    yield finished
        if finished := writer.drain():
            yield finished

    def memory(self) -> int:
        """Peak bytes so far: of the device where it counts them, else of this process."""
        return model_cache.peak_bytes(self.device)

    @property
    def _stage(self) -> StagePlan:
        return self.plan.stages[self.stage_index]

    @property
    def _band(self) -> Band:
        """Latent rows that this worker denoises."""
        return self._stage.bands[self.comms.world.rank]

    @property
    def _share(self) -> Band:
        """Latent rows of the band that are this worker's own."""
        return self._stage.shares[self.sharing.rank]

    def _shared(self, x_BCTHW: Tensor) -> Tensor:
        """The share's rows of a tensor over the band."""
        start = self._share.start - self._band.start
        return x_BCTHW[..., start : start + self._share.rows, :]

    @property
    def _saved(self) -> StageRows:
        """This worker's rows of this stage in the store."""
        place = (self.stage_index, self._band, self._share)
        return StageRows(self.plan, self.store, *place, self.device, self.trace)

    @property
    def _stage_start(self) -> StageStart:
        return StageStart(self._saved, self.model, self.sharing, self.pair)

    @property
    def _pieces(self) -> StagePieces:
        latents = self._shared(self.x_BCTHW)
        return StagePieces(self._saved, self.model, latents, self.sharing)

    def _build_guide(self, noise_BCTHW: Tensor, g_BCTHW: Tensor | None = None) -> None:
        """Put this stage's guide, if it has one, to work, and what stays of a given picture."""
        if self.plan.is_guided(self.stage_index):
            world = self.comms.world
            self.guiding = at_work(self.plan, world, self._saved, noise_BCTHW, g_BCTHW)
        known = None if self.stage_index else g_BCTHW
        self.guiding.outside = self._stage_start.outside(noise_BCTHW, known)

    def _enter(self, stage_index: int) -> None:
        """Take up a stage: its noise from the start, no memory of steps, its first frame."""
        self.stage_index = stage_index
        self.solver = solver(self._stage.schedule)
        model_cache.apply(self._stage.loras, self.plan.facts, self.plan.spec, self.device)
        self._noise = Noise(self.plan, stage_index)
        latent, canvas = self.plan.facts.latent, self._stage.canvas
        shape = (1, latent.channels, canvas.frames, self._band.rows, canvas.width)
        zeros = torch.zeros(shape, device=self.device)
        self.history = (zeros,) * self.solver.num_history
        grid = Grid(canvas, self._stage.bands)
        self.guiding = StageGuide(self.comms.world, grid, self._stage.levels)
        place = band_place(self.plan, grid, self.comms.world.rank)
        self.image = self._stage_start.image_condition(place)
        self.network = Network(
            self.plan,
            stage_index,
            self.model,
            self.comms,
            self.pair,
            conditioning=self.conditioning,
            image={**self.image, **self._stage_start.control()},
            edits=RegionalPrompts.of(self._stage.prompts, self._saved.masks()),
            trace=self.trace,
        )
        self.network.inputs = [zeros] * num_cached(self.plan.spec, self._stage)
        self.trace.take_conditioning(self.conditioning.get(self._stage.prompt), self.image)

    def _num_noises(self, step_index: int) -> int:
        """How many were drawn before a step, after the stage's first."""
        drawn = self._stage.draws[:step_index]
        return sum(drawn) * (1 + self.solver.needs_noise) - len(drawn)

    def _draw_noise(self) -> Tensor:
        """This band's rows of the stage's next noise."""
        noise = self._to_device(self._noise.draw(self._band))
        self.trace.take("noise", noise, self._band)
        return noise

    def _keep(self, kind: str, slot: int, x_BCTHW: Tensor) -> Digests:
        """Save latents of this stage for guidance, if the plan asks for them."""
        if (name := f"{self.stage_index}-{kind}") not in self.plan.arrays:
            return {}
        rows_CTHW = self._shared(x_BCTHW)[0].float().cpu().numpy()
        return self._saved.write(self.plan.array(name), slot, rows_CTHW)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, torch.float32)
