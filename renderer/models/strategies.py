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
from ..spec.options import checked_options
from ..spec.render_spec import RenderSpec
from .family import BandPlace, Guidance, Model

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from frieze.cluster.strategies import Cells, Strategy, StrategyStep, Tiling

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
    """A network on parts of a canvas, and on a canvas of another size, for one prompt.

    `tensors` are the prompt's, `place` the rank's own, from which all others are made. `begin`
    prepares what changes attention for a tile's place.
    """

    model: Model
    guidance: Guidance
    tensors: Mapping[str, Tensor]
    place: BandPlace
    begin: Callable[[BandPlace], None]

    def in_tiles(
        self, x_NCTHW: Tensor, level: Any, tiles: Sequence[Tile], is_placed: bool
    ) -> Tensor:
        """x0 of each tile, as many together as have the same positions."""
        import torch

        if not is_placed or self.model.facts.attentions:  # a U-Net's tiles have none
            return self._of_tile(x_NCTHW, level, tiles[0], is_placed)
        pairs = zip(x_NCTHW.chunk(len(tiles)), tiles, strict=True)
        return torch.cat([self._of_tile(x, level, tile, True) for x, tile in pairs])

    def of_canvas(self, x_BCTHW: Tensor, level: Any, canvas: Canvas) -> Tensor:
        """x0 of a whole canvas."""
        place = replace(self.place, band=Band(0, canvas.height), canvas=canvas)
        return self.model.denoised(x_BCTHW, level, self.tensors, place, self.guidance)

    def _of_tile(self, x_NCTHW: Tensor, level: Any, tile: Tile, is_placed: bool) -> Tensor:
        place = replace(self.place, band=tile.rows, columns=tile.columns)
        if not is_placed:
            canvas = Canvas(place.canvas.frames, tile.height, tile.width)
            place = replace(self.place, band=Band(0, tile.height), canvas=canvas)
        self.begin(place)
        number = len(x_NCTHW)
        tensors = {name: x.expand(number, *x.shape[1:]) for name, x in self.tensors.items()}
        return self.model.denoised(x_NCTHW, level, tensors, place, self.guidance)


def _module(spec: RenderSpec) -> ModuleType | None:
    return None if spec.strategy == DEFAULT else plugins.load("strategies", spec.strategy)
