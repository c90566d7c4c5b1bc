"""Strategies: one file per way to spread a canvas; each defines `predict`.

A strategy is called at every step on every rank of a canvas, once for each prompt that the rank
evaluates. It decides what a rank's rows learn of all others: everything, so that they are those of
the whole canvas (`bands`), or less. Its ranks talk through the communicators that it is given and
through nothing else. Another distribution adds one by an entry point in `frieze.strategies`.

One that takes options defines `Options`, a frozen pydantic model. One that gives the network parts
of the canvas defines `tiling(options, canvas, cells, seed)`, the `Tiling` of a canvas, None for a
canvas that it draws whole, and `check(options, canvas, cells)`, which raises `LayoutError` for a
picture that it cannot draw so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..layout import Tile

if TYPE_CHECKING:
    from torch import Tensor

    from ..attention import AttentionModifier
    from ..bands import Marks
    from ..comm import AxisComms
    from ..layout import Band, Canvas


class Cells(NamedTuple):
    """A model's latent cells: so many `pixels` a side each, so many `trained` on a side.

    Parts of a canvas begin and end at multiples of `unit` cells.
    """

    pixels: int
    trained: int
    unit: int


@dataclass(frozen=True)
class Tiling:
    """The tiles of a canvas: of one size, at every top with every left, and how they are drawn.

    Neighbours fade into each other over (rows, columns) of `overlap`.
    `coarse` is the canvas that is drawn whole beside them, None where there is none; `batch` tiles
    are drawn at a time. `is_placed`: positions are counted from the canvas' edge, else from a
    tile's own.
    """

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int
    width: int
    overlap: tuple[int, int]
    coarse: Canvas | None = None
    batch: int = 1
    is_placed: bool = True

    @property
    def num_tiles(self) -> int:
        """Of a step."""
        return len(self.tops) * len(self.lefts)

    def of_ranks(self, bands: Sequence[Band]) -> list[list[Tile]]:
        """The tiles that each rank draws: runs of them, row by row, as long as bands are tall."""
        sides = (self.height, self.width)
        tiles = [Tile(top, left, *sides) for top in self.tops for left in self.lefts]
        # The last rank draws the coarse canvas as well, if there is one.
        parts = len(tiles) + (self.coarse is not None)
        edges = [0, *(min(round(parts * b.stop / bands[-1].stop), len(tiles)) for b in bands)]
        return [tiles[start:stop] for start, stop in pairwise(edges)]

    def told(self, bands: Sequence[Band], pixels: int) -> str:
        """How many there are, of which size, and how many each rank draws; `pixels` a cell."""
        size = f"{self.width * pixels} x {self.height * pixels} px"
        text = f"a step: at most {self.num_tiles} tiles of {size}"
        if len(bands) > 1:
            text += f", {' + '.join(str(len(each)) for each in self.of_ranks(bands))}"
        if self.coarse:
            size = f"{self.coarse.width * pixels} x {self.coarse.height * pixels} px"
            text += f", and a canvas of {size}"
        return text


@dataclass(frozen=True)
class StrategyStep:
    """What else a strategy may ask at a step: the same on every rank, but for what it draws with.

    `seed` is another one at every step; `noise` is how much of the latents is, 1 to 0.
    `in_tiles(x, level, tiles, is_placed)` runs the network on some tiles [N, C, (T,) H, W] of the
    canvas, `of_canvas(x, level, canvas)` on one of another size. `wraps` are the sides that meet.
    """

    cells: Cells
    options: Any
    seed: int
    noise: float
    in_tiles: Callable[[Tensor, Any, Sequence[Tile], bool], Tensor]
    of_canvas: Callable[[Tensor, Any, Canvas], Tensor]
    wraps: str = ""


class Strategy(Protocol):
    """What a file in this folder, or a module behind an entry point, must define."""

    @staticmethod
    def predict(
        denoised: Callable[[Tensor, Any], Tensor],
        x: Tensor,
        level: Any,
        comm: AxisComms,
        *,
        bands: Sequence[Band],
        marks: Sequence[Marks],
        modifier: AttentionModifier | None,
        step: StrategyStep,
    ) -> Tensor:
        """This rank's rows of the network's estimate of the whole canvas, shaped as `x`.

        `x` [B, C, (T,) H, W] are the rows `bands[comm.world.rank]` of the canvas, in latent
        pixels; `bands` are those of all ranks, from the top, without a gap.
        `denoised(x, level)` runs the network on a tensor of these rows; `step` has what runs it on
        parts of the canvas. `marks` say which layers of the network mix rows, and how. `modifier`
        changes and measures the attention of the marked layers; None: nothing is changed.
        All ranks of the canvas call it, in the same order. Between any two calls the render may be
        resumed or cut anew: what is kept from one to the next must not be needed.
        """
