"""Draw a canvas as overlapping tiles of the trained size, which fade into each other at each step.

MultiDiffusion (arXiv 2302.08113), with what keeps it from drawing each tile a picture of its own:
tiles know where on the canvas they lie, the low band is that of a coarse canvas which is drawn
whole (scale fusion, arXiv 2412.09626; global guidance by dilated samples, arXiv 2311.16973), and
their edges move from step to step.

Which rank draws which tile follows from the canvas and its bands; what it draws does not. A canvas
of no more cells than a tile is drawn as bands.
Shape suffixes: N tiles, B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from torch import Tensor

from frieze.kernels.blend import add_weighted, hats, low_band, partition

from ..attention import AttentionModifier
from ..bands import Marks, band_mode
from ..comm import AxisComms, Comm, Like, axis_comms, solo
from ..layout import Band, Canvas, LayoutError, Tile, tile_starts
from . import Cells, StrategyStep, Tiling

MOST_PIXELS = 2**20
# How much of the latents is noise when a layout is made: from then on less and less is fused.
LAYOUT = 0.3
Side = Annotated[int, Field(ge=16, le=MOST_PIXELS)]


class Options(BaseModel):
    """Of tiles. Sizes are pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    tile: Side | None = Field(
        default=None, description="a tile's side; default: the size the model was trained at"
    )
    overlap: Annotated[int, Field(ge=0, le=MOST_PIXELS)] | None = Field(
        default=None, description="what neighbours share at least; default: a quarter of a tile"
    )
    shift: StrictBool = Field(default=True, description="tiles lie elsewhere at every step")
    fusion: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="frequencies up to this part of a coarse canvas' highest are of that canvas, "
        "which is drawn whole; 0 for none",
    )
    positions: Literal["canvas", "tile"] = Field(
        default="canvas", description="what positions are counted from"
    )
    batch: int = Field(default=1, ge=1, le=1024, description="tiles drawn at a time")


def check(options: Options, canvas: Canvas, cells: Cells) -> None:
    """Raises `LayoutError` for tiles that a picture of this canvas cannot have."""
    size, overlap = _sides(options, cells)
    unit, least = cells.pixels * cells.unit, min(canvas.height, canvas.width) * cells.pixels
    for name, value in (("tile", options.tile), ("overlap", options.overlap)):
        if value is not None and value % unit:
            near = max(unit if name == "tile" else 0, round(value / unit) * unit)
            raise LayoutError(
                f"option {name} of tiles = {value}: no multiple of {unit} px, which this model "
                f"needs; the nearest is {near}"
            )
    if options.tile is not None and options.tile > least:
        raise LayoutError(
            f"option tile of tiles = {options.tile}: larger than the picture, whose shorter side "
            f"has {least} px; use at most that, or leave it out"
        )
    if overlap >= size:
        raise LayoutError(
            f"option overlap of tiles = {overlap * cells.pixels}: a tile has {size * cells.pixels} "
            f"px; use at most {(size - cells.unit) * cells.pixels}"
        )


def tiling(
    options: Options, canvas: Canvas, cells: Cells, seed: int | None = None
) -> Tiling | None:
    """The tiles of a canvas, without a `seed` the most; None where it is no larger than one."""
    size, overlap = _sides(options, cells)
    if size**2 >= canvas.height * canvas.width:
        return None
    sides = [min(size, length) for length in (canvas.height, canvas.width)]
    starts = []
    for name, length, side in zip(
        ("rows", "columns"), (canvas.height, canvas.width), sides, strict=True
    ):
        offset = None
        if options.shift and side < length:
            drawn = -1 if seed is None else zlib.crc32(f"{seed} {name}".encode())
            offset = drawn % ((side - overlap) // cells.unit) * cells.unit
        shared = overlap if side < length else 0
        starts.append(tile_starts(length, side, shared, cells.unit, offset))
    return Tiling(
        tops=starts[0],
        lefts=starts[1],
        height=sides[0],
        width=sides[1],
        overlap=(overlap, overlap),
        coarse=_coarse(canvas, size, cells.unit) if options.fusion else None,
        batch=options.batch,
        is_placed=options.positions == "canvas",
    )


def _sides(options: Options, cells: Cells) -> tuple[int, int]:
    """A tile's side and what neighbours share, in cells."""
    size = cells.trained // cells.unit * cells.unit
    if options.tile is not None:
        size = options.tile // cells.pixels
    if options.overlap is not None:
        return size, options.overlap // cells.pixels
    return size, size // 4 // cells.unit * cells.unit


def _coarse(canvas: Canvas, size: int, unit: int) -> Canvas:
    """The canvas made smaller until it has as many cells as a tile."""
    times = math.sqrt(canvas.height * canvas.width) / size
    height, width = (
        max(unit, round(side / times / unit) * unit) for side in (canvas.height, canvas.width)
    )
    return Canvas(canvas.frames, height, width)


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
    """This rank's rows of all tiles' estimates, each cell by its tiles' weights; see Strategy."""
    world, options = comm.world, step.options
    canvas = Canvas(x.shape[2] if x.ndim == 5 else 1, bands[-1].stop, x.shape[-1])
    laid = tiling(options, canvas, step.cells, step.seed)
    if laid is None:
        with band_mode(comm, bands, marks=marks, canvas=canvas, modifier=modifier):
            return denoised(x, level)
    runs = laid.of_ranks(bands)
    held = [_held(run) for run in runs]
    rows = world.gather_rows(x, bands, [range(run.start, run.stop) for run in held], -2)

    def drawn(x_NCTHW: Tensor, tiles: Sequence[Tile]) -> Tensor:
        part = Canvas(canvas.frames, laid.height, laid.width)
        change = modifier if laid.is_placed else None
        with band_mode(_alone(), [Band(0, part.height)], marks=marks, canvas=part, modifier=change):
            return step.in_tiles(x_NCTHW, level, tiles, laid.is_placed)

    blended = _blended(rows, laid, runs[world.rank], held[world.rank], canvas, drawn)
    estimate = world.give_back(blended, bands, held, -2)
    if laid.coarse is None:
        return estimate
    whole = _drawn_whole(x, level, world, bands, laid.coarse, step)
    strength = min(1.0, step.noise / LAYOUT)
    return _fused(estimate, whole, world, bands, laid.coarse, options.fusion, strength)


def _held(tiles: Sequence[Tile]) -> Band:
    """The rows of the canvas that tiles lie on; none of none."""
    return Band(tiles[0].top, tiles[-1].rows.stop) if tiles else Band(0, 0)


def _alone() -> AxisComms:
    return axis_comms(solo())


def _blended(
    rows: Tensor,
    laid: Tiling,
    tiles: Sequence[Tile],
    held: Band,
    canvas: Canvas,
    drawn: Callable[[Tensor, Sequence[Tile]], Tensor],
) -> Tensor:
    """The weighted sum of some tiles on the rows `held` that they lie on, tile by tile."""
    total = torch.zeros_like(rows)
    of_rows, of_columns = (
        dict(zip(starts, partition(starts, size, length, overlap), strict=True))
        for starts, size, length, overlap in (
            (laid.tops, laid.height, canvas.height, laid.overlap[0]),
            (laid.lefts, laid.width, canvas.width, laid.overlap[1]),
        )
    )

    def crop(x: Tensor, tile: Tile) -> Tensor:
        return x[..., tile.top - held.start : tile.rows.stop - held.start, _columns(tile)]

    for first in range(0, len(tiles), laid.batch):
        some = tiles[first : first + laid.batch]
        estimates = drawn(torch.cat([crop(rows, tile) for tile in some]), some)
        for tile, estimate in zip(some, estimates.chunk(len(some)), strict=True):
            add_weighted(crop(total, tile), estimate, of_rows[tile.top], of_columns[tile.left])
    return total


def _columns(tile: Tile) -> slice:
    return slice(tile.left, tile.left + tile.width)


def _samples(length: int, number: int) -> list[int]:
    """So many cells along a side, as far apart from each other, the same at every step.

    Their noise is then one picture's from the first step to the last.
    """
    return [(2 * i + 1) * length // (2 * number) for i in range(number)]


def _drawn_whole(
    x: Tensor,
    level: Any,
    world: Comm,
    bands: Sequence[Band],
    coarse: Canvas,
    step: StrategyStep,
) -> Tensor:
    """The coarse canvas' estimate, on every rank, as linear between its cells on this one's rows.

    It is made of single cells of the canvas, so that there is as much noise in it. The last rank,
    which has no more tiles than others, draws it.
    """
    band, drawer = bands[world.rank], world.size - 1
    rows = _samples(bands[-1].stop, coarse.height)
    columns = _samples(x.shape[-1], coarse.width)
    wanted: list[list[int]] = [[]] * drawer + [rows]
    some = world.gather_rows(x, bands, wanted, -2)
    estimate = None
    if world.rank == drawer:
        estimate = step.of_canvas(some[..., columns], level, coarse)
    shape = (*x.shape[:-2], coarse.height, coarse.width)
    estimate = world.broadcast(estimate, drawer, Like(shape, x.dtype, x.device))
    of_rows = hats([row + 0.5 for row in rows], bands[-1].stop)[band.start : band.stop].to(x)
    of_columns = hats([column + 0.5 for column in columns], x.shape[-1]).to(x)
    return of_rows @ estimate @ of_columns.T


def _fused(
    x: Tensor,
    whole: Tensor,
    world: Comm,
    bands: Sequence[Band],
    coarse: Canvas,
    cutoff: float,
    strength: float,
) -> Tensor:
    """x0 of tiles with its low band, on the grid of the coarse canvas, drawn to the whole's."""
    band = bands[world.rank]
    of_rows, of_columns = (
        hats([(i + 0.5) * length / number for i in range(number)], length).to(x)
        for length, number in ((bands[-1].stop, coarse.height), (x.shape[-1], coarse.width))
    )
    means = of_rows / of_rows.sum(0)
    own = means[band.start : band.stop].T @ (whole - x) @ (of_columns / of_columns.sum(0))
    low = low_band(world.all_reduce(own), cutoff)
    return x + strength * (of_rows[band.start : band.stop] @ low @ of_columns.T)
