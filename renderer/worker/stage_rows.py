"""A worker's rows of what a store keeps of a render's stages.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band, Canvas

from ..autoencoders import infgen
from ..autoencoders.decoding import Piece, decode
from ..autoencoders.infgen import Anchor
from ..controlnets.reduced import nearest
from ..extrapolation.guides import View
from ..models import finite
from ..models.family import Model
from ..planning.canvas_plan import CanvasPlan
from ..sampling.inpainting import composited
from ..sampling.solvers import stage_seed
from ..store.numerics import KEPT
from ..store.store import Store
from . import model_cache, upsampling
from .tensor_trace import TensorTrace

PICTURE_ROWS = 256  # of a given picture that are read at a time, to be made smaller


@dataclass(frozen=True)
class StageRows:
    """`band` are the rows of a stage that a worker denoises, `share` those that it saves."""

    plan: CanvasPlan
    store: Store
    stage_index: int
    band: Band
    share: Band
    device: torch.device
    trace: TensorTrace = field(default_factory=TensorTrace)

    def write(self, array: int, slot: int, rows_CTHW: np.ndarray) -> dict[int, str]:
        """This worker's share of this stage, into a slot of an array; digests of its chunks."""
        self._trace(array, slot, self.share, torch.from_numpy(rows_CTHW))
        rows = slice(self.share.start, self.share.stop)
        return self.store.save_latents(array, slot, rows, rows_CTHW)

    def read(
        self,
        array: int,
        source_index: int,
        slot: int,
        rows: Band,
        factor: int | None = None,
        mode: upsampling.Interpolation = "bicubic",
    ) -> Tensor:
        """Rows of this stage from an array over an earlier one's canvas, enlarged where smaller.

        `factor` is the array's cells per latent cell, a pixel's by default.
        """
        factor = factor or self.plan.facts.latent.downscale
        source, target = (
            (canvas.height * factor, canvas.width * factor)
            for canvas in (self.plan.stages[i].canvas for i in (source_index, self.stage_index))
        )
        wraps = self.plan.stages[self.stage_index].canvas.wraps
        if source != target and wraps:
            read = functools.partial(self._rows, array, slot)
            place = (source, rows, target, mode, wraps)
            return self._to_device(upsampling.enlarged_around(read, *place))
        held = rows
        if source != target:
            held = upsampling.source_rows(rows, source[0], target[0], mode)
        found = self._rows(array, slot, held)
        if source != target:
            found = upsampling.enlarge(found, held, source, rows, target, mode)
        return self._to_device(found)

    def given(self, rows: Band, frames: slice) -> Tensor:
        """Pixels of the picture that is redrawn in part, and how much of each is drawn."""
        array = self.plan.array(self.plan.given)
        found = self.store.load_latents(array, 0, slice(rows.start, rows.stop), frames)
        return self._to_device(torch.from_numpy(found))

    def anchor(self) -> Anchor | None:
        """The picture or clip that this stage encodes; None where it draws one."""
        anchor = self.plan.anchor(self.stage_index)
        return None if anchor is None else self._stored(*anchor)

    def redrawn(self) -> Anchor | None:
        """The picture or clip that was handed in, where this stage draws over it."""
        if not self.plan.redraws(self.stage_index):
            return None
        return self._stored("upscale", self.plan.sources["upscale"].size)

    def _stored(self, name: str, size: tuple[int, int]) -> Anchor:
        """A picture or clip of so many rows and columns in an array, read by rows."""
        array = self.plan.array(name)

        def read(frame: int, rows: range) -> Tensor:
            part = slice(rows.start, rows.stop), slice(frame, frame + 1)
            found_CTHW = torch.from_numpy(self.store.load_latents(array, 0, *part))
            return self._to_device(found_CTHW).squeeze(2)

        return Anchor(size, read)

    def reduced(self, name: str, size: tuple[int, int]) -> Tensor:
        """All of a picture at a size of so many latent cells, of its nearest pixels."""
        downscale, array = self.plan.facts.latent.downscale, self.plan.array(name)
        height, width = self.plan.size(self.stage_index)
        rows, columns = (
            nearest(source, cells * downscale)
            for source, cells in zip((height, width), size, strict=True)
        )
        parts = []
        for start in range(0, height, PICTURE_ROWS):
            stop = min(start + PICTURE_ROWS, height)
            found = torch.from_numpy(self.store.load_latents(array, 0, slice(start, stop)))
            held = [row - start for row in rows if start <= row < stop]
            parts.append(found[..., held, :][..., columns])
        return self._to_device(torch.cat(parts, dim=-2))

    def latents(self, name: str, source_index: int, slot: int) -> Tensor:
        """The band's rows of latents kept for guidance, enlarged where smaller."""
        return self.read(self.plan.array(name), source_index, slot, self.band, 1)

    def masks(self) -> Tensor | None:
        """Those of this stage's edits on the whole canvas, [M, H, W]; None where there are none."""
        stage = self.plan.stages[self.stage_index]
        if not stage.edits:
            return None
        array = self.plan.array(f"{self.stage_index}-edits")
        return self._rows(array, 0, Band(0, stage.canvas.height))[0]

    def placed(self, view: View, slot: int) -> Tensor:
        """The band with the last stage's latents in their place, as they are, zeros around."""
        index, latent = self.stage_index - 1, self.plan.facts.latent
        inner, outer = (self.plan.stages[i].canvas for i in (index, self.stage_index))
        region = view.region(inner, outer, latent.patch)
        shape = (latent.channels, outer.frames, self.band.rows, outer.width)
        start, stop = (
            min(max(edge - region.top, 0), region.height)
            for edge in (self.band.start, self.band.stop)
        )
        placed_CTHW = torch.zeros(shape)
        if start < stop:
            first = region.top + start - self.band.start
            columns = slice(region.left, region.left + region.width)
            found_CTHW = self._rows(index, slot, Band(start, stop))[: latent.channels]
            placed_CTHW[:, :, first : first + stop - start, columns] = found_CTHW
        return self._to_device(placed_CTHW)

    def _rows(self, array: int, slot: int, rows: Band) -> Tensor:
        found = self.store.load_latents(array, slot, slice(rows.start, rows.stop))
        self._trace(array, slot, rows, torch.from_numpy(found))
        return torch.from_numpy(found)

    def _trace(self, array: int, slot: int, rows: Band, x_CTHW: Tensor) -> None:
        """Note what goes to the store and comes from it; states are noted where they are used."""
        name = self.plan.arrays[array]
        if not name.isdigit():
            self.trace.take(f"{KEPT}{name} {slot}", x_CTHW, rows)

    def _to_device(self, x_CTHW: Tensor) -> Tensor:
        return x_CTHW.to(self.device, torch.float32).unsqueeze(0)


@dataclass(frozen=True)
class StagePieces:
    """A worker's share of a stage's picture or clip, piece by piece; all ranks ask together."""

    saved: StageRows
    model: Model
    x_BCTHW: Tensor
    sharing: Comm

    def between(self) -> Iterator[Piece]:
        """Of what the next stage enlarges."""
        plan, after = self.saved.plan, self.saved.stage_index + 1
        rows_per_block = plan.stages[self.saved.stage_index].align * plan.facts.latent.downscale
        if not plan.enlarges(after):
            return self.decoded(rows_per_block)
        stage, downscale = plan.stages[after], plan.facts.latent.downscale
        share = stage.shares[self.sharing.rank].scaled(downscale)
        return self._enlarged(plan.size(after), share, stage.align * downscale)

    def finished(self, is_done: Callable[[int, int], bool]) -> Iterator[Piece]:
        """Of the finished one, given pixels where they stay.

        A decoder of any size leaves out what `is_done` by frame and row.
        """
        plan = self.saved.plan
        if plan.decoder is None:
            return self._composited(self.decoded(plan.block[0]))
        size, rows = (plan.spec.height, plan.spec.width), plan.decoded[self.sharing.rank]
        return self._composited(self._enlarged(size, rows, plan.block[0], is_done))

    def _composited(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        plan = self.saved.plan
        if plan.inpaint is None:
            yield from pieces
            return
        for piece in pieces:
            drawn = piece.pixels_BCTHW
            given = self.saved.given(piece.rows, slice(piece.frame, piece.frame + drawn.shape[2]))
            yield replace(piece, pixels_BCTHW=composited(drawn, given))

    def _enlarged(
        self,
        size: tuple[int, int],
        rows: Band,
        rows_per_block: int,
        is_done: Callable[[int, int], bool] = infgen.nothing_done,
    ) -> Iterator[Piece]:
        """Rows of this stage's, enlarged to a size by the decoder of any."""
        plan, index = self.saved.plan, self.saved.stage_index
        assert plan.decoder is not None
        asked = infgen.Enlargement(
            size=size,
            rows=rows,
            rows_per_block=rows_per_block,
            seed=stage_seed(plan.spec.seed, index) if plan.enlarges(index) else plan.spec.seed,
            temporal=plan.facts.latent.temporal,
            is_done=is_done,
            anchor=self.saved.anchor(),
        )
        network = model_cache.decoder(plan.decoder, plan.spec, self.saved.device)
        return self._traced(infgen.enlarged(network, *self._latents, asked, fault=self._fault))

    def decoded(self, rows_per_block: int) -> Iterator[Piece]:
        """As the autoencoder makes it."""
        found = decode(*self._latents, rows_per_block=rows_per_block, fault=self._fault)
        return self._traced(found)

    @property
    def _latents(self) -> tuple[Model, Tensor, tuple[Band, ...], Canvas, Comm]:
        """As `decode` takes them."""
        stage = self.saved.plan.stages[self.saved.stage_index]
        return self.model, self.x_BCTHW, stage.shares, stage.canvas, self.sharing

    def _fault(self, what: str) -> Exception:
        where = f"decoding stage {self.saved.stage_index + 1}"
        return finite.error(what, where=where, spec=self.saved.plan.spec)

    def _traced(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The same, noted where the spec asks for digests."""
        for piece in pieces:
            where = f"pixels {piece.frame}/{piece.row}"
            self.saved.trace.take(where, piece.pixels_BCTHW, piece.rows)
            yield piece
