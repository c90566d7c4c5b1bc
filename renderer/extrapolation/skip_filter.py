"""FreeU on bands: a U-Net's backbone is raised and its skips lose their lowest frequencies.

FreeU (Si et al. 2023, arXiv 2309.11497), gated as its authors do, by the channels of what comes up
and not by the block.  Their filter multiplies the frequencies {-1, 0} x {-1, 0} of a skip by s and
takes the real part: x - (1 - s) Re(P x), of which nine sums a channel know everything.  They are
added up over the bands; nobody needs the Fourier transform of a canvas.

Shape suffixes: B batch, C channels, H rows of a band, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from frieze.cluster.bands import BandError, HookSites
from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band
from frieze.cluster.thread_value import ThreadValue
from frieze.kernels.reference import wide

SLICE = 64  # channels that are filtered at once: a large map is not held twice in float32


@dataclass(frozen=True)
class FreeU:
    """What the first half of the backbone's channels is multiplied by, and a skip's lowest
    frequencies: b1 and s1 where the backbone is widest, b2 and s2 where it is next."""

    b1: float = 1.1
    b2: float = 1.2
    s1: float = 0.6
    s2: float = 0.4


@dataclass(frozen=True)
class SkipSite:
    """A layer whose input is a backbone of so many channels, and a skip behind it.

    `width` is 1 where that is the network's widest, 2 where it is the next.
    """

    layer: str
    num_backbone: int
    width: int


@dataclass(frozen=True)
class _Step:
    """A step that is running on this thread: its factors, and whose rows these are."""

    factors: FreeU
    comm: Comm
    bands: Sequence[Band]


_step: ThreadValue[_Step] = ThreadValue("skips")
_sites = HookSites()


def free_u(
    factors: FreeU | None, comm: Comm, bands: Sequence[Band]
) -> AbstractContextManager[None]:
    """Inside, on this thread, hooked networks have these factors; None leaves them plain.

    `bands` are the rows of every rank of `comm`; a map of another resolution has its share of them.
    """
    return _step.set(None if factors is None else _Step(factors, comm, bands))


def hook_skips(network: nn.Module, sites: Sequence[SkipSite]) -> None:
    """Hooks for the layers that take skips, each once; outside `free_u` they do nothing.

    AttributeError names a layer that the network lacks.
    """
    _sites.hook(network, {site: partial(_hook, network, site) for site in sites})


def _hook(network: nn.Module, site: SkipSite) -> None:
    network.get_submodule(site.layer).register_forward_pre_hook(partial(_change, site))


def skip_sites(unet: nn.Module) -> list[SkipSite]:
    """The layers of one of diffusers' U-Nets that take a skip where its backbone is wide.

    Gated as by FreeU's authors, by the channels that come up: of SDXL's these are all of the first
    two blocks and the first layer of the third.
    """
    channels: Any = unet.get_submodule("mid_block.resnets.0").out_channels
    found: list[tuple[str, int]] = []
    blocks: Any = unet.get_submodule("up_blocks")
    for i, block in enumerate(blocks):
        for j, layer in enumerate(block.resnets):
            found.append((f"up_blocks.{i}.resnets.{j}", channels))
            channels = layer.out_channels
    widest = sorted({channels for _, channels in found}, reverse=True)[:2]
    return [SkipSite(name, n, widest.index(n) + 1) for name, n in found if n in widest]


def _change(site: SkipSite, layer: nn.Module, args: Any) -> Any:
    if (step := _step.get()) is None:
        return None
    joined_BCHW, *rest = args
    factors = step.factors
    b, s = (factors.b1, factors.s1) if site.width == 1 else (factors.b2, factors.s2)
    # A layer's hooks run inside the mode, to which sums over rows are those of a band alone.
    with torch._C.DisableTorchFunction():
        backbone_BCHW, skip_BCHW = joined_BCHW.tensor_split([site.num_backbone], dim=1)
        half = site.num_backbone // 2
        raised_BCHW = torch.cat((backbone_BCHW[:, :half] * b, backbone_BCHW[:, half:]), dim=1)
        damped_BCHW = damped(skip_BCHW, s, step.comm, step.bands)
        return (torch.cat((raised_BCHW, damped_BCHW), dim=1), *rest)


def damped(x_BCHW: Tensor, scale: float, comm: Comm, bands: Sequence[Band]) -> Tensor:
    """This band's rows of a map whose lowest frequencies are multiplied by `scale`.

    `bands` are all ranks' rows, at any resolution of which this map's rows are a share; BandError
    where they are not.
    """
    accumulate, width = wide(x_BCHW.dtype), x_BCHW.shape[-1]
    start, stop, height = _place(x_BCHW.shape[-2], comm, bands)
    rows_3H, columns_3W = (
        waves.to(x_BCHW.device, accumulate)
        for waves in (_waves(start, stop, height), _waves(0, width, width))
    )
    slices = x_BCHW.split(SLICE, dim=1)
    sums_BC33 = comm.all_reduce(
        torch.cat([rows_3H @ (each.to(accumulate) @ columns_3W.mT) for each in slices], dim=1)
    )
    weights_BC33 = (scale - 1) / (height * width) * _of_frequencies(sums_BC33)
    return torch.cat(
        [
            (each + rows_3H.mT @ weights @ columns_3W).to(x_BCHW.dtype)
            for each, weights in zip(slices, weights_BC33.split(SLICE, dim=1), strict=True)
        ],
        dim=1,
    )


def _of_frequencies(sums: Tensor) -> Tensor:
    """Weights of the products of waves in Re(P x) from the sums of x with them, [..., 3, 3].

    With a and b the angles of a row and a column the four frequencies are 0, a, b and a + b, each
    with a cosine and a sine, and cos(a + b) = cos a cos b - sin a sin b.
    """
    weights = sums.clone()
    even = sums[..., 1, 1] - sums[..., 2, 2]
    odd = sums[..., 2, 1] + sums[..., 1, 2]
    weights[..., 1, 1], weights[..., 2, 2] = even, -even
    weights[..., 2, 1], weights[..., 1, 2] = odd, odd
    return weights


def _waves(start: int, stop: int, length: int) -> Tensor:
    """One, cosine and sine of a single turn over `length` cells, at some of them; float64."""
    angles = 2 * math.pi / length * torch.arange(start, stop, dtype=torch.float64)
    return torch.stack((torch.ones_like(angles), angles.cos(), angles.sin()))


def _place(num_rows: int, comm: Comm, bands: Sequence[Band]) -> tuple[int, int, int]:
    """(first row, row after the last, rows of the canvas) of a band's map of so many rows."""
    if comm.size == 1:
        return 0, num_rows, num_rows
    own, share = bands[comm.rank], Fraction(num_rows, bands[comm.rank].rows)
    start, height = own.start * share, bands[-1].stop * share
    if start.denominator > 1 or height.denominator > 1:
        raise BandError(
            f"a map of {num_rows} rows is no whole share of a band of {own.rows} rows from row "
            f"{own.start}; cut the canvas at multiples of {share.denominator}"
        )
    return int(start), int(start) + num_rows, int(height)
