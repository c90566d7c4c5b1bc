"""Spread a canvas as bands: every rank draws its own rows, exactly as one rank would draw all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

from torch import Tensor

from ..attention import AttentionModifier
from ..bands import Marks, band_mode
from ..comm import AxisComms, Comm
from ..layout import Band, Canvas
from . import StrategyStep

Level = TypeVar("Level")


def predict(
    denoised: Callable[[Tensor, Level], Tensor],
    x: Tensor,
    level: Level,
    comm: Comm | AxisComms,
    *,
    bands: Sequence[Band] | None = None,
    marks: Sequence[Marks] = (),
    modifier: AttentionModifier | None = None,
    step: StrategyStep | None = None,
) -> Tensor:
    """denoised(x, level) of the whole canvas, of which x [B, C, (T,) H, W] is this rank's band.

    `bands` are those of all ranks; without them the ranks tell each other how many rows they hold.
    `modifier` changes and measures the attention of the layers in `marks`, on any number of ranks.
    """
    if bands is None:
        bands = _all_bands(x.shape[-2], comm.world if isinstance(comm, AxisComms) else comm)
    frames, wraps = x.shape[2] if x.ndim == 5 else 1, step.wraps if step else ""
    canvas = Canvas(frames, bands[-1].stop, x.shape[-1], wraps)
    with band_mode(comm, bands, marks=marks, canvas=canvas, modifier=modifier):
        return denoised(x, level)


def _all_bands(rows: int, comm: Comm) -> tuple[Band, ...]:
    edges = accumulate(comm.all_gather_object(rows), initial=0)
    return tuple(Band(start, stop) for start, stop in pairwise(edges))
