"""Group normalisation of a canvas in parts: moments that merge exactly, then one pass.

Shape suffixes: B batch, C channels, G groups, N elements of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .meta_tensors import device_type
from .reference import wide

# Deviations from the mean are held for this many elements at a time: a cache's worth on a CPU,
# and never a float32 twin of a large activation on an accelerator.
DEVIATIONS_ON_CPU = 1 << 17
DEVIATIONS_ELSEWHERE = 1 << 26


@dataclass(frozen=True)
class Moments:
    """Element count, mean and centred sum of squares of each [batch, group]: one tensor to send.

    Kept in float64 whatever the input: the tensors are tiny, and the counts of a large canvas
    exceed the integers of float32.
    """

    packed_3BG: Tensor

    @property
    def mean(self) -> Tensor:
        """[B, G]."""
        return self.packed_3BG[1]

    @property
    def m2(self) -> Tensor:
        """[B, G]."""
        return self.packed_3BG[2]

    @property
    def variance(self) -> Tensor:
        """The biased variance m2 / count, which is what normalisation layers divide by."""
        return self.m2 / self.packed_3BG[0].clamp(min=1)


def moments(x: Tensor, num_groups: int) -> Moments:
    """The moments of each group of channels of x [B, C, *spatial]; ValueError unless G divides C.

    Two passes, the second over deviations from the mean, so that a large mean costs no digits.
    """
    batch, channels = x.shape[:2]
    if channels % num_groups:
        raise ValueError(f"{channels} channels do not split into {num_groups} groups")
    if not x.numel():
        return Moments(x.new_zeros((3, batch, num_groups), dtype=torch.float64))
    x_GN = x.reshape(batch * num_groups, -1)
    mean_G = x_GN.mean(-1, dtype=wide(x.dtype))
    m2_G = _squared_deviations(x_GN, mean_G)
    count_G = torch.full_like(m2_G, x_GN.shape[1])
    return Moments(torch.stack((count_G, mean_G.double(), m2_G)).view(3, batch, num_groups))


def _squared_deviations(x_GN: Tensor, mean_G: Tensor) -> Tensor:
    """sum_n (x_n - mean)^2 per group, in float64 over pieces of bounded size."""
    budget = DEVIATIONS_ON_CPU if device_type(x_GN) == "cpu" else DEVIATIONS_ELSEWHERE
    num_groups, size = x_GN.shape
    width = min(size, budget)
    groups = max(1, budget // width)
    if groups >= num_groups and width == size:
        return _squares(x_GN, mean_G).double()
    m2_G = mean_G.new_zeros(num_groups, dtype=torch.float64)
    for start in range(0, num_groups, groups):
        rows = slice(start, start + groups)
        for piece in x_GN[rows].split(width, dim=1):
            m2_G[rows] += _squares(piece, mean_G[rows])
            if x_GN.is_meta:  # no piece holds more than the first
                return m2_G
    return m2_G


def _squares(x_GN: Tensor, mean_G: Tensor) -> Tensor:
    return (x_GN.to(mean_G.dtype) - mean_G[:, None]).square_().sum(-1)


def merge(parts: Sequence[Moments]) -> Moments:
    """The moments of the union of disjoint parts, of all parts at once; empty ones change nothing.

    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm (1979), equation 2.1 for
    any number of parts. A few operations however many there are: on an accelerator each is a
    launch, and there are dozens of norms in a step. The order is part of the result's last bits:
    give the parts in rank order, everywhere.
    """
    if len(parts) == 1:
        return parts[0]
    count_PBG, mean_PBG, m2_PBG = torch.stack([part.packed_3BG for part in parts], 1)
    count_BG = count_PBG.sum(0)
    mean_BG = (count_PBG / count_BG.clamp(min=1) * mean_PBG).sum(0)
    m2_BG = (m2_PBG + count_PBG * (mean_PBG - mean_BG).square_()).sum(0)
    return Moments(torch.stack((count_BG, mean_BG, m2_BG)))


def normalise(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    moments: Moments,
) -> Tensor:
    """x [B, C, *spatial] normalised with the moments of the canvas that it is a part of.

    Group norm with given statistics is batch norm at inference over the B * C channels of one
    example, which torch computes in one pass, widening narrow inputs inside.
    """
    if not x.numel():
        return x.clone()
    batch, channels = x.shape[:2]
    per_group = channels // num_groups
    dtype = wide(x.dtype)
    y = F.batch_norm(
        x.reshape(1, batch * channels, *x.shape[2:]),
        _of_channels(moments.mean, per_group, dtype),
        _of_channels(moments.variance, per_group, dtype),
        _of_batch(weight, batch, dtype),
        _of_batch(bias, batch, dtype),
        eps=eps,
    )
    return y.view(x.shape)


def _of_channels(group_BG: Tensor, per_group: int, dtype: torch.dtype) -> Tensor:
    """What a group has, for each of its channels: [B * C]."""
    return group_BG.to(dtype)[..., None].expand(-1, -1, per_group).reshape(-1)


def _of_batch(channel_C: Tensor | None, batch: int, dtype: torch.dtype) -> Tensor | None:
    """What a channel has, for each example: [B * C]."""
    if channel_C is None:
        return None
    wide_C = channel_C.to(dtype)
    return wide_C if batch == 1 else wide_C.repeat(batch)
