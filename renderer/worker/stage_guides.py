"""A guide at work on one rank's band of one stage; exact on any number of ranks.

Shape suffixes: B batch, C channels, T frames, H rows of a band, W columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band, Canvas, Halo

from ..extrapolation.guides import CanvasRegion, Detail, Flow, Resolution, View, weight
from ..sampling.inpainting import Outside
from ..sampling.solvers import noised
from .low_pass import butterworth, haar

if TYPE_CHECKING:
    from ..planning.canvas_plan import CanvasPlan
    from ..sampling.noise_levels import NoiseLevel
    from .stage_rows import StageRows


@dataclass(frozen=True)
class Grid:
    """The canvas as the network sees it at one step: on all sides `margin` cells of zeros more."""

    canvas: Canvas
    bands: tuple[Band, ...]
    margin: int = 0

    def shifted(self, margin: int) -> Grid:
        """The grid of tokens moved up and left by `margin` cells: half a token, rows even so.

        Every band but the last ends as many rows sooner as it begins, so that it keeps whole
        tokens.
        """
        canvas, last = self.canvas, len(self.bands) - 1
        wide = Canvas(canvas.frames, canvas.height + 2 * margin, canvas.width + 2 * margin)
        bands = [
            Band(b.start, b.stop + (2 * margin if i == last else 0))
            for i, b in enumerate(self.bands)
        ]
        return Grid(wide, tuple(bands), margin)

    def into(self, comm: Comm, x_BCTHW: Tensor) -> Tensor:
        """The rows of this grid's band, from those of the plain canvas' band."""
        if not self.margin:
            return x_BCTHW
        m = self.margin
        return F.pad(_moved(comm, x_BCTHW, m, (m, m)), (m, m))

    def back(self, comm: Comm, x_BCTHW: Tensor) -> Tensor:
        """The inverse of `into`; what lies in the margins is gone."""
        if not self.margin:
            return x_BCTHW
        m = self.margin
        return _moved(comm, x_BCTHW[..., m:-m], -m, (-m, -m))


def _moved(comm: Comm, x_BCTHW: Tensor, rows: int, last: tuple[int, int]) -> Tensor:
    """Bands that begin `rows` rows sooner and end as many sooner; the last one by `last`."""
    halos = [Halo(rows, -rows)] * (comm.size - 1) + [Halo(*last)]
    return comm.borrow(x_BCTHW, halos[comm.rank], x_BCTHW.ndim - 2, halos)


class StageGuide:
    """What guides a stage: here, nothing. All ranks of a canvas call every method together."""

    memory: tuple[Tensor, ...] = ()  # saved with the latents, as the solver's history is
    outside: Outside | None = None  # what stays of a picture that is redrawn in part

    def __init__(self, comm: Comm, grid: Grid, levels: Sequence[NoiseLevel]) -> None:
        self.comm, self.plain, self.levels = comm, grid, levels
        self.num_steps = len(levels) - 1

    def grid(self, index: int) -> Grid:
        """Where tokens lie at a step."""
        return self.plain

    def entered(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """The latents from which a step starts."""
        return x_BCTHW

    def corrected(self, index: int, x0_BCTHW: Tensor) -> Tensor:
        """The network's x0, on the step's grid, as the guide will have it."""
        return x0_BCTHW

    def left(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """The latents at a level, as a step ends with them: noised given ones where they stay."""
        if self.outside is None:
            return x_BCTHW
        level = self.levels[index] if index < self.num_steps else None
        return self.outside.kept(x_BCTHW, level)


class ResolutionGuiding(StageGuide):
    """`Resolution`: g is the last stage's picture, enlarged and encoded."""

    def __init__(
        self,
        guide: Resolution,
        comm: Comm,
        grid: Grid,
        levels: Sequence[NoiseLevel],
        *,
        g_BCTHW: Tensor,
        margin: int,
    ) -> None:
        super().__init__(comm, grid, levels)
        self.guide, self.g_BCTHW = guide, g_BCTHW
        self.moved = grid.shifted(margin) if guide.is_on and guide.half_token else grid

    def grid(self, index: int) -> Grid:
        """Half a token off at even steps."""
        return self.plain if index % 2 else self.moved

    def corrected(self, index: int, x0_BCTHW: Tensor) -> Tensor:
        """x0 + c LP(g - x0)."""
        guide, grid = self.guide, self.grid(index)
        if not guide.is_on:
            return x0_BCTHW
        c = weight(guide.schedule, index, self.num_steps)
        gap = grid.into(self.comm, self.g_BCTHW) - x0_BCTHW
        low = haar(self.comm, gap, grid.bands)
        change = c * gap + (1 - c) * low if guide.schedule == "cosine_shift" else c * low
        return x0_BCTHW + guide.strength * change


class ViewGuiding(StageGuide):
    """`View`: g lies on the canvas where the view is, and zeros elsewhere."""

    def __init__(
        self,
        guide: View,
        comm: Comm,
        grid: Grid,
        levels: Sequence[NoiseLevel],
        *,
        g_BCTHW: Tensor,
        noise_BCTHW: Tensor,
        region: CanvasRegion,
        patch: int,
    ) -> None:
        super().__init__(comm, grid, levels)
        self.guide, self.g_BCTHW, self.noise_BCTHW = guide, g_BCTHW, noise_BCTHW
        feather = guide.feather * patch if guide.form == "feathered" else 0
        mask_HW = mask(region, grid.canvas, grid.bands[comm.rank], feather)
        self.mask_HW = mask_HW.to(g_BCTHW)

    def entered(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """The view overwritten with noised g, at the first steps."""
        if self.guide.form == "projected" or index >= self.guide.lasts(self.num_steps):
            return x_BCTHW
        view = noised(self.g_BCTHW, self.noise_BCTHW, self.levels[index])
        return self.mask_HW * view + (1 - self.mask_HW) * x_BCTHW

    def corrected(self, index: int, x0_BCTHW: Tensor) -> Tensor:
        """x0 + c LP(g - x0) within the view, in the projected form."""
        c = weight(self.guide.schedule, index, self.num_steps)
        if self.guide.form != "projected" or c == 0:
            return x0_BCTHW
        gap = self.mask_HW * (self.g_BCTHW - x0_BCTHW)
        return x0_BCTHW + c * self.mask_HW * haar(self.comm, gap, self.plain.bands)


class FlowGuiding(StageGuide):
    """`Flow`: `reference` gives this band's rows of the last stage's x0 at one of its steps."""

    def __init__(
        self,
        guide: Flow,
        comm: Comm,
        grid: Grid,
        levels: Sequence[NoiseLevel],
        *,
        alignment: float,
        before: Sequence[NoiseLevel],
        reference: Callable[[int], Tensor],
        zeros: Tensor,
    ) -> None:
        super().__init__(comm, grid, levels)
        self.guide, self.alignment = guide, alignment
        self.before, self.reference = before, reference
        self.memory = (zeros,) * guide.num_memory

    def corrected(self, index: int, x0_BCTHW: Tensor) -> Tensor:
        """Aligned in its low band, then in how fast it approaches the last stage's."""
        guide, left = self.guide, (self.num_steps - index) / self.num_steps
        if not (self.alignment or guide.accelerate):
            return x0_BCTHW
        r = self.reference(nearest(self.before, self.levels[index]))
        if self.alignment:
            low = butterworth(
                self.comm, r - x0_BCTHW, self.plain.bands, cutoff=guide.cutoff, order=guide.order
            )
            x0_BCTHW = x0_BCTHW + self.alignment * left * low
        if guide.accelerate:
            if index:
                # v - v_r = (r - x0) / t, so the velocities' rule needs no velocity.
                ratio = time(self.levels[index]) / time(self.levels[index - 1])
                change = (r - x0_BCTHW) - ratio * self.memory[0]
                x0_BCTHW = x0_BCTHW + guide.accelerate * left * change
            self.memory = (r - x0_BCTHW,)
        return x0_BCTHW


class DetailGuiding(StageGuide):
    """`Detail`: g is the last stage's picture, enlarged and encoded.

    `times` are those of the levels, `region` [H, W] is 1 on this band's cells of the user's mask.
    """

    def __init__(
        self,
        guide: Detail,
        comm: Comm,
        grid: Grid,
        levels: Sequence[NoiseLevel],
        *,
        g_BCTHW: Tensor,
        noise_BCTHW: Tensor,
        times: Sequence[float],
        region_HW: Tensor | None = None,
    ) -> None:
        super().__init__(comm, grid, levels)
        self.guide, self.g_BCTHW, self.noise_BCTHW = guide, g_BCTHW, noise_BCTHW
        self.times, self.factor = times, g_BCTHW.new_tensor(guide.factor)
        if region_HW is not None:
            region_HW = region_HW.to(g_BCTHW)
            self.factor = guide.inside * region_HW + guide.outside * (1 - region_HW)

    def entered(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """Latents blended with noised g."""
        c = self.guide.hold(self.times[index]) ** self.factor
        noisy = noised(self.g_BCTHW, self.noise_BCTHW, self.levels[index])
        return (1 - c) * x_BCTHW + c * noisy


def time(level: NoiseLevel) -> float:
    """Rectified flow's t at which the signal is as noisy: sigma / (alpha + sigma)."""
    return level.sigma / (level.alpha + level.sigma)


def nearest(levels: Sequence[NoiseLevel], level: NoiseLevel) -> int:
    """The step, of those between `levels`, that starts nearest to a level's time."""
    return min(range(len(levels) - 1), key=lambda i: abs(time(levels[i]) - time(level)))


def mask(region: CanvasRegion, canvas: Canvas, band: Band, feather: int) -> Tensor:
    """A band's rows of 1 within the region and 0 outside, float64 [H, W].

    Edges that are not the canvas' own rise by half a cosine over `feather` cells.
    """
    row = _ramp(region.top, region.height, canvas.height, feather)[band.start : band.stop]
    return row[:, None] * _ramp(region.left, region.width, canvas.width, feather)[None, :]


def _ramp(start: int, length: int, whole: int, feather: int) -> Tensor:
    at = torch.arange(whole, dtype=torch.float64) + 0.5
    far = torch.full_like(at, math.inf)
    above = at - start if start else far
    below = start + length - at if start + length < whole else far
    inside = torch.minimum(above, below)
    if not feather:
        return (inside > 0).double()
    return 0.5 - 0.5 * torch.cos(math.pi * (inside / feather).clamp(0, 1))


def _same(g_BCTHW: Tensor | None, _: int) -> Tensor:
    """The latents of a picture that is redrawn, which no step made."""
    assert g_BCTHW is not None
    return g_BCTHW


def at_work(
    plan: CanvasPlan,
    comm: Comm,
    saved: StageRows,
    noise_BCTHW: Tensor,
    g_BCTHW: Tensor | None = None,
) -> StageGuide:
    """The guide of a stage on this rank's band, from what the stage before it left.

    `noise` is the stage's first, `g` the band's guiding latents, None those that were saved.
    """
    index, patch, guide = saved.stage_index, plan.facts.latent.patch, plan.method.guide
    before, stage = plan.stages[max(0, index - 1)], plan.stages[index]
    lies = (comm, Grid(stage.canvas, stage.bands), stage.levels)
    if g_BCTHW is None and f"{index}-guide" in plan.arrays:
        g_BCTHW = saved.latents(f"{index}-guide", index, 0)
    if isinstance(guide, Flow):
        reference = functools.partial(saved.latents, f"{index - 1}-clean", index - 1)
        if plan.redraws(index):  # whose x0 is what it is, at all times
            reference = functools.partial(_same, g_BCTHW)
        return FlowGuiding(
            guide,
            *lies,
            alignment=guide.alignment(index),
            before=before.levels,
            reference=reference,
            zeros=torch.zeros_like(noise_BCTHW),
        )
    assert g_BCTHW is not None
    if isinstance(guide, Resolution):
        return ResolutionGuiding(guide, *lies, g_BCTHW=g_BCTHW, margin=patch // 2)
    assert guide is not None
    if isinstance(guide, Detail):
        schedule, is_masked = plan.facts.schedule, plan.has_regions
        return DetailGuiding(
            guide,
            *lies,
            g_BCTHW=g_BCTHW,
            noise_BCTHW=noise_BCTHW,
            times=[schedule.time(level) for level in stage.levels],
            region_HW=saved.latents(f"{index}-mask", index, 0)[0, 0, 0] if is_masked else None,
        )
    region = guide.region(before.canvas, stage.canvas, patch)
    return ViewGuiding(
        guide, *lies, g_BCTHW=g_BCTHW, noise_BCTHW=noise_BCTHW, region=region, patch=patch
    )
