"""Features of a ControlNet that ran on a smaller map, enlarged to those of a band's U-Net.

HiDiffusion (arXiv 2311.17528), as its code was released: latents and picture are resized to the
trained size by their nearest cells, the features bicubically to the U-Net's own maps, whatever its
convolutions make of these at a step. The small map is the same on every rank: each runs it whole.
Shape suffixes: B batch, C channels, T frames (1), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels import bicubic

if TYPE_CHECKING:
    from frieze.cluster.bands import ConvShape

    from ..models.family import BandPlace


def nearest(source: int, target: int) -> list[int]:
    """The places of `source` that `interpolate(mode="nearest")` takes for `target` ones."""
    places = torch.arange(source, dtype=torch.float64)[None, None]
    return F.interpolate(places, size=target, mode="nearest").long().flatten().tolist()


@dataclass(frozen=True)
class _Map:
    """A map of the canvas at one depth of a network, and a band's rows of it."""

    height: int
    width: int
    start: int
    stop: int

    def strided(self, stride: int) -> _Map:
        """The same behind a layer of a stride; edges that do not divide make a cell more."""
        height, width, stop = (-(-n // stride) for n in (self.height, self.width, self.stop))
        return _Map(height, width, self.start // stride, stop)

    def taken(self, x_BCHW: Tensor) -> Tensor:
        """The band's rows of features that are enlarged to the map."""
        rows, columns = range(self.start, self.stop), range(self.width)
        return bicubic.enlarge(x_BCHW, (self.height, self.width), rows, columns)


def enlarged(
    down: Sequence[Tensor], middle: Tensor, unet: Any, place: BandPlace, shape: ConvShape
) -> tuple[list[Tensor], Tensor]:
    """Features on the way down and of the middle, as a band of a U-Net of this shape has maps."""
    maps = list(_maps(unet, place, shape))
    features = [each.taken(x) for each, x in zip(maps, down, strict=True)]
    return features, maps[-1].taken(middle)


def _maps(unet: Any, place: BandPlace, shape: ConvShape) -> Iterator[_Map]:
    """The maps that a U-Net keeps on its way down, of which the last is the middle's too."""
    canvas, band = place.canvas, place.band
    now = _Map(canvas.height, canvas.width, band.start, band.stop)
    pooled = {pool.after for pool in shape.pools}
    yield now
    for index, block in enumerate(unet.down_blocks):
        for layer, _ in enumerate(block.resnets):
            if f"down_blocks.{index}.attentions.{layer}" in pooled:
                now = now.strided(2)
            yield now
        if block.downsamplers is not None:
            geometry = shape.convs.get(f"down_blocks.{index}.downsamplers.0.conv")
            now = now.strided(2 if geometry is None else geometry.stride)
            yield now
