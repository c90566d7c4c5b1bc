"""A worker's rows of what a store keeps of a render's stages.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from frieze.cluster.layout import Band

from ..autoencoders.decoding import Piece
from ..autoencoders.infgen import Anchor
from ..controlnets.reduced import nearest
from ..extrapolation.guides import View
from ..planning.canvas_plan import CanvasPlan
from ..sampling.inpainting import composited
from ..store.numerics import KEPT
from ..store.store import Store
from . import upsampling
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
        held = rows
        if source != target:
            held = upsampling.source_rows(rows, source[0], target[0], mode)
        found = self._rows(array, slot, held)
        if source != target:
            found = upsampling.enlarge(found, held, source, rows, target, mode)
        return self._to_device(found)

    def composited(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Pieces of the finished picture, given pixels where they stay."""
        plan = self.plan
        if plan.inpaint is None:
            yield from pieces
            return
        array = plan.array(plan.given)
        for piece in pieces:
            drawn = piece.pixels_BCTHW
            rows, frames = piece.rows, slice(piece.frame, piece.frame + drawn.shape[2])
            found = self.store.load_latents(array, 0, slice(rows.start, rows.stop), frames)
            given = self._to_device(torch.from_numpy(found))
            yield replace(piece, pixels_BCTHW=composited(drawn, given))

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
