"""One rank's share of a render: a plain class that a fleet places on a device.

Everything it holds between verbs is in canvas coordinates and can be read back from the store,
so a shard can be replaced, or the canvas cut anew, between any two steps.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frieze.cluster.attention import axis_comms
from frieze.cluster.bands import band_mode
from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band
from frieze.cluster.strategies.bands import predict

from . import resample
from .decode import decode, quantise
from .family import Conditioning, Model, ModelFacts, Place, load_family
from .plan import CanvasPlan
from .sampling import euler, noised
from .store import Store
from .writer import Writer

_LOADED: dict[tuple[str, str, str], Model] = {}
_LOADING = threading.Lock()


@dataclass(frozen=True)
class StepReport:
    """What one step cost on one rank."""

    seconds: float
    bytes_sent: int


class Shard:
    """Holds one band of the canvas on one device and advances it; see architecture in README."""

    def __init__(self, plan: CanvasPlan, store_path: str, picture_path: str | None) -> None:
        self.plan = plan
        self.store_path = store_path
        self.picture_path = picture_path
        self.device = _device(plan.spec.device)
        self.conditioning = Conditioning()
        self.stage_index = -1
        self.x_BCHW = torch.empty(0)

    def join(self, comm: Comm) -> None:
        """Receive the communicator that the fleet made for this rank."""
        self.comm = comm
        self.comms = axis_comms(comm, self.plan.mesh)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def load(self) -> dict[str, Any]:
        """Open the store and load the weights, once per process however many rank threads."""
        self.store = Store.open(self.store_path)
        spec, facts = self.plan.spec, self.plan.facts
        key = (facts_key(facts), spec.dtype, str(self.device))
        with _LOADING:
            if key not in _LOADED:
                _LOADED.clear()
                _LOADED[key] = load_family(facts.family).load(facts, spec.dtype, self.device)
            self.model = _LOADED[key]
        return {"pid": os.getpid(), "device": str(self.device)}

    @torch.no_grad()
    def encode(self) -> None:
        """Turn the prompt into conditioning on rank 0 and hand it to every rank."""
        spec, facts = self.plan.spec, self.plan.facts
        mine = None
        if self.comm.rank == 0:
            mine = load_family(facts.family).encode(facts, spec, self.device)
            mine = Conditioning({k: v.cpu() for k, v in mine.tensors.items()})
        shared = self.comm.broadcast_object(mine, 0)
        self.conditioning = Conditioning(
            {name: tensor.to(self.device) for name, tensor in shared.tensors.items()}
        )

    @torch.no_grad()
    def paint(self) -> None:
        """Decode this stage's latents into the store, for the next stage to enlarge."""
        stage = self.plan.stages[self.stage_index]
        rows = stage.align * self.plan.facts.latent.downscale
        pixels = decode(
            self.model, self.x_BCHW, stage.bands, stage.canvas, self.comm, rows_per_block=rows
        )
        array = self.plan.picture_array(self.stage_index)
        for row, rows_BCHW in pixels:
            rows_CTHW = rows_BCHW.clamp(-1, 1).transpose(0, 1).float().cpu().numpy()
            self.store.save_latents(array, 0, slice(row, row + rows_CTHW.shape[2]), rows_CTHW)

    @torch.no_grad()
    def begin(self, stage_index: int, from_slot: int | None) -> None:
        """Noise for the first stage; for a later one the last stage, enlarged and noised anew.

        `from_slot` is where the last stage's final latents lie in the store; its picture is there
        too if this stage enlarges pixels.
        """
        self.stage_index = stage_index
        stage = self.plan.stages[stage_index]
        noise = self._noise(stage_index)
        if stage_index == 0:
            self.x_BCHW = noise * stage.sigmas[0]
            return
        assert from_slot is not None
        if stage.enlarge == "pixels":
            clean = self._repainted(stage_index)
        else:
            clean = self._enlarged(stage_index, from_slot)
        self.x_BCHW = noised(clean, noise, stage.sigmas[0])

    def restore(self, stage_index: int, slot: int) -> None:
        """Read this band's rows of a saved state, whatever number of ranks saved it."""
        self.stage_index = stage_index
        band = self._band
        rows = self.store.load_latents(stage_index, slot, slice(band.start, band.stop))
        self.x_BCHW = self._to_device(torch.from_numpy(rows)).transpose(0, 1)

    @torch.no_grad()
    def step(self, step_index: int) -> StepReport:
        """Advance this band by one sigma interval."""
        began, sent = time.perf_counter(), self.comm.num_bytes_sent
        stage = self.plan.stages[self.stage_index]
        sigma, sigma_next = stage.sigmas[step_index : step_index + 2]
        place = Place(self._band, stage.canvas, self.plan.method.positions)
        guidance = self.plan.spec.guidance_scale

        def denoised(x_BCHW: Tensor, at: float) -> Tensor:
            return self.model.denoised(x_BCHW, at, self.conditioning, place, guidance)

        clean = predict(
            denoised,
            self.x_BCHW,
            sigma,
            self.comms,
            bands=stage.bands,
            marks=self.model.denoiser_marks,
        )
        self.x_BCHW = euler(self.x_BCHW, clean, sigma, sigma_next)
        return StepReport(time.perf_counter() - began, self.comm.num_bytes_sent - sent)

    def save(self, slot: int) -> None:
        """Write this band's latent rows into a slot of the store."""
        band = self._band
        latents_CTHW = self.x_BCHW.transpose(0, 1).float().cpu().numpy()
        self.store.save_latents(self.stage_index, slot, slice(band.start, band.stop), latents_CTHW)

    def latents(self) -> Tensor:
        """This band's latents [C, 1, H, W], for callbacks that ask for them."""
        return self.x_BCHW.transpose(0, 1).cpu()

    @torch.no_grad()
    def decode(self) -> Iterator[list[str]]:
        """Decode this band and write it, yielding the ids of blocks that are safely on disk."""
        stage = self.plan.stages[-1]
        pixels = decode(
            self.model,
            self.x_BCHW,
            stage.bands,
            stage.canvas,
            self.comm,
            rows_per_block=self.plan.block[0],
        )
        done = self.store.done()
        with Writer(self.store, sinks=self._sinks()) as writer:
            for row, rows_BCHW in pixels:
                if not self.store.covers(done, row):
                    writer.put(row, quantise(rows_BCHW, self.plan.spec.bits))
                if finished := writer.drain():
                    yield finished
        if finished := writer.drain():
            yield finished

    def _sinks(self) -> list[Callable[[int, np.ndarray], None]]:
        """Where blocks go besides the store: the live TIFF, if there is one."""
        if self.picture_path is None:
            return []
        from .exports import tiff

        return [functools.partial(tiff.write_tiles, self.picture_path)]

    def memory(self) -> int:
        """Peak bytes so far: of the device where it counts them, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # Not getrusage: a forked process inherits its parent's peak there.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    @property
    def _band(self) -> Band:
        return self.plan.stages[self.stage_index].bands[self.comm.rank]

    def _noise(self, stage_index: int) -> Tensor:
        """This band's rows of the stage's noise, drawn whole so that ranks do not matter.

        Stage 0 draws what diffusers' pipelines draw from the same seed.
        """
        canvas = self.plan.stages[stage_index].canvas
        generator = torch.Generator().manual_seed(stage_seed(self.plan.spec.seed, stage_index))
        shape = (1, self.plan.facts.latent.channels, canvas.height, canvas.width)
        whole = torch.randn(shape, generator=generator, dtype=getattr(torch, self.plan.spec.dtype))
        band = self.plan.stages[stage_index].bands[self.comm.rank]
        return self._to_device(whole[:, :, band.start : band.stop].clone().float())

    def _enlarged(self, stage_index: int, slot: int) -> Tensor:
        """The last stage's latents, enlarged to this band's rows."""
        return self._from_store(stage_index, stage_index - 1, slot, 1)

    def _repainted(self, stage_index: int) -> Tensor:
        """The last stage's picture, enlarged to this band's pixel rows and encoded."""
        array = self.plan.picture_array(stage_index - 1)
        pixels = self._from_store(stage_index, array, 0, self.plan.facts.latent.downscale)
        stage = self.plan.stages[stage_index]
        mode = band_mode(
            self.comm, stage.bands, marks=self.model.encoder_marks, canvas=stage.canvas
        )
        with mode:
            return self.model.encoded(pixels)

    def _from_store(self, stage_index: int, array: int, slot: int, factor: int) -> Tensor:
        """A saved array, `factor` times as fine as the last stage's latents, enlarged for here."""
        small, large = (self.plan.stages[i].canvas for i in (stage_index - 1, stage_index))
        band = self._band.scaled(factor)
        source = (small.height * factor, small.width * factor)
        target = (large.height * factor, large.width * factor)
        held = resample.source_rows(band, source[0], target[0])
        rows = self.store.load_latents(array, slot, slice(held.start, held.stop))
        enlarged_CTHW = resample.enlarge(torch.from_numpy(rows), held, source, band, target)
        return self._to_device(enlarged_CTHW).transpose(0, 1)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, torch.float32)


def stage_seed(seed: int, stage_index: int) -> int:
    """The seed of a stage's noise: the render's own for the first, far apart for the others."""
    return (seed + stage_index * 0x9E3779B97F4A7C15) % 2**63


def facts_key(facts: ModelFacts) -> str:
    """What tells one loaded checkpoint from another in a process."""
    return f"{facts.family}:{facts.folder}"


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
