"""The strategy of a render: its options, the tiles of a canvas, and the network on these.

The default one, which draws every canvas whole and takes no options, is not loaded to be planned.
Shape suffixes: N tiles, B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from frieze.cluster.layout import Band, Canvas, LayoutError, Tile

from .. import plugins
from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..inputs import masks
from ..spec.options import checked_options
from ..spec.render_spec import RenderSpec
from .family import BandPlace, Guidance, Model

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from frieze.cluster.strategies import Cells, Strategy, StrategyStep, Tiling

    from ..inputs.sources import Source
    from ..sampling.noise_levels import NoiseLevel

DEFAULT = RenderSpec.model_fields["strategy"].default


class NoOptions(BaseModel):
    """Of a strategy that takes none."""


def load_strategy(spec: RenderSpec) -> Strategy:
    """The file named `spec.strategy`; raises `SpecError` that lists those there are."""
    return cast("Strategy", plugins.load("strategies", spec.strategy))


def strategy_options(spec: RenderSpec) -> BaseModel:
    """Every option of the strategy, as the spec gives it or by default; raises `SpecError`."""
    kind: type[BaseModel] = getattr(_module(spec), "Options", NoOptions)
    return checked_options(kind, spec.strategy_options, "strategy", spec.strategy)


def cells(facts: ModelFacts) -> Cells:
    """How a model's latent cells count."""
    from frieze.cluster.strategies import Cells

    latent = facts.latent
    return Cells(latent.downscale, facts.training_size // latent.downscale, latent.patch)


def tiling(
    spec: RenderSpec, facts: ModelFacts, canvas: Canvas, seed: int | None = None
) -> Tiling | None:
    """The tiles of a canvas in a step; without a seed those of a step with most of them.

    None where the network is given the whole canvas.
    """
    found: Any = getattr(_module(spec), "tiling", None)
    return found and found(strategy_options(spec), canvas, cells(facts), seed)


def check(spec: RenderSpec, facts: ModelFacts, canvas: Canvas) -> None:
    """Raises `PlanError` for a picture that the strategy cannot draw, `SpecError` for options."""
    plugins.check("strategies", spec.strategy)
    options, checks = strategy_options(spec), getattr(_module(spec), "check", None)
    if checks is None:
        return
    try:
        checks(options, canvas, cells(facts))
    except LayoutError as error:
        raise PlanError(str(error)) from None


def check_covered(spec: RenderSpec, facts: ModelFacts, sources: Mapping[str, Source]) -> None:
    """Tiles of a picture without a prompt of its own are told those of its parts, all over."""
    if spec.prompt or not spec.edit or spec.strategy == DEFAULT:
        return
    sides = (side // facts.latent.downscale for side in (spec.height, spec.width))
    edited = [sources[f"edit-{index}"] for index in range(len(spec.edit))]
    masks.check_covered(edited, "edit", *sides)


def step_seed(seed: int, stage: int, step: int) -> int:
    """Another number for each step of each stage of a picture, the same whenever it is asked."""
    return zlib.crc32(f"{seed} {stage} {step}".encode())


def strategy_step(
    facts: ModelFacts,
    spec: RenderSpec,
    seed: int,
    level: NoiseLevel,
    in_tiles: Callable[[Tensor, Any, Sequence[Tile], bool], Tensor],
    of_canvas: Callable[[Tensor, Any, Canvas], Tensor],
    wraps: str = "",
) -> StrategyStep:
    """What a strategy may ask at a step, whose `seed` is `step_seed`'s."""
    from frieze.cluster.strategies import StrategyStep

    noise = level.sigma / (level.alpha + level.sigma)
    return StrategyStep(
        cells(facts), strategy_options(spec), seed, noise, in_tiles, of_canvas, wraps
    )


@dataclass(frozen=True)
class CanvasParts:
    """A network on parts of a canvas, and on a canvas of another size.

    `tensors` are a prompt's, `place` the rank's own, from which all others are made. `begin`
    prepares what changes attention for a tile's place. Where regions have `prompts` of their own,
    the estimates by those that a part has anything of are blended by their shares of each cell.
    """

    model: Model
    guidance: Guidance
    tensors: Mapping[str, Tensor]
    place: BandPlace
    begin: Callable[[BandPlace], None]
    prompts: Sequence[Mapping[str, Tensor]] = ()

    def in_tiles(
        self, x_NCTHW: Tensor, level: Any, tiles: Sequence[Tile], is_placed: bool
    ) -> Tensor:
        """x0 of each tile, as many together as have the same positions and one prompt."""
        import torch

        # A U-Net's tiles have no positions.
        if not self.prompts and (not is_placed or self.model.facts.attentions):
            return self._of_tile(x_NCTHW, level, tiles[0], is_placed)
        pairs = zip(x_NCTHW.chunk(len(tiles)), tiles, strict=True)
        return torch.cat([self._of_tile(x, level, tile, is_placed) for x, tile in pairs])

    def of_canvas(self, x_BCTHW: Tensor, level: Any, canvas: Canvas) -> Tensor:
        """x0 of a whole canvas."""
        from torch.nn.functional import adaptive_avg_pool2d

        place = replace(self._alone, band=Band(0, canvas.height), canvas=canvas)
        share_PHW, sides = self._share_PHW, (canvas.height, canvas.width)
        shares = None if share_PHW is None else adaptive_avg_pool2d(share_PHW, sides)
        return self._told(x_BCTHW, level, place, shares)

    @property
    def _alone(self) -> BandPlace:
        """The rank's place as one prompt has it."""
        return replace(self.place, texts=(), regions=None)

    @property
    def _share_PHW(self) -> Tensor | None:
        regions = self.place.regions
        return regions.share_PRC if self.prompts and regions else None

    def _of_tile(self, x_NCTHW: Tensor, level: Any, tile: Tile, is_placed: bool) -> Tensor:
        place = replace(self._alone, band=tile.rows, columns=tile.columns)
        if not is_placed:
            canvas = Canvas(place.canvas.frames, tile.height, tile.width)
            place = replace(self._alone, band=Band(0, tile.height), canvas=canvas)
        self.begin(place)
        shares = self._share_PHW
        if shares is not None:
            rows, columns = tile.rows, tile.columns
            shares = shares[:, rows.start : rows.stop, columns.start : columns.stop]
        return self._told(x_NCTHW, level, place, shares)

    def _told(
        self, x_NCTHW: Tensor, level: Any, place: BandPlace, share_PHW: Tensor | None
    ) -> Tensor:
        """x0 by the prompt, or by those of regions, in the order of the prompts."""

        def by(tensors: Mapping[str, Tensor]) -> Tensor:
            number = len(x_NCTHW)
            wide = {name: x.expand(number, *x.shape[1:]) for name, x in tensors.items()}
            return self.model.denoised(x_NCTHW, level, wide, place, self.guidance)

        if share_PHW is None:
            return by(self.tensors)
        total = x_NCTHW.new_zeros(x_NCTHW.shape)
        for tensors, share_HW in zip(self.prompts, share_PHW, strict=True):
            if share_HW.is_meta or bool(share_HW.any()):
                total = total + share_HW.to(x_NCTHW) * by(tensors)
        return total


def _module(spec: RenderSpec) -> ModuleType | None:
    return None if spec.strategy == DEFAULT else plugins.load("strategies", spec.strategy)
