"""Group normalisation of a canvas in parts: moments that merge exactly, then one pass.

Shape suffixes: B batch, C channels, G groups, N elements of a group.
"""

from __future__ import annotations

import functools
import operator
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
    """Element count, mean and centred sum of squares of each [batch, group]; [B, G] each.

    Kept in float64 whatever the input: the tensors are tiny, and the counts of a large canvas
    exceed the integers of float32.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __add__(self, other: Moments) -> Moments:
        """The moments of the union of two disjoint parts, exactly; an empty part changes nothing.

        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm (1979), equation 2.1.
        """
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / count.clamp(min=1)
        m2 = self.m2 + other.m2 + delta * delta * self.count * share
        return Moments(count, self.mean + delta * share, m2)

    @property
    def variance(self) -> Tensor:
        """The biased variance m2 / count, which is what normalisation layers divide by."""
        return self.m2 / self.count.clamp(min=1)

    def pack(self) -> Tensor:
        """One tensor [3, B, G] to send."""
        return torch.stack((self.count, self.mean, self.m2))

    @staticmethod
    def unpack(packed_3BG: Tensor) -> Moments:
        """The inverse of `pack`."""
        count, mean, m2 = packed_3BG.unbind(0)
        return Moments(count, mean, m2)


def moments(x: Tensor, num_groups: int) -> Moments:
    """The moments of each group of channels of x [B, C, *spatial]; ValueError unless G divides C.

    Two passes, the second over deviations from the mean, so that a large mean costs no digits.
    """
    batch, channels = x.shape[:2]
    if channels % num_groups:
        raise ValueError(f"{channels} channels do not split into {num_groups} groups")
    if not x.numel():
        return Moments.unpack(x.new_zeros((3, batch, num_groups), dtype=torch.float64))
    x_GN = x.reshape(batch * num_groups, -1)
    mean_G = x_GN.mean(-1, dtype=wide(x.dtype))
    m2_G = _squared_deviations(x_GN, mean_G)
    count_G = torch.full_like(m2_G, x_GN.shape[1])
    return Moments.unpack(torch.stack((count_G, mean_G.double(), m2_G)).view(3, batch, num_groups))


def _squared_deviations(x_GN: Tensor, mean_G: Tensor) -> Tensor:
    """sum_n (x_n - mean)^2 per group, in float64 over pieces of bounded size."""
    budget = DEVIATIONS_ON_CPU if device_type(x_GN) == "cpu" else DEVIATIONS_ELSEWHERE
    num_groups, size = x_GN.shape
    width = min(size, budget)
    groups = max(1, budget // width)
    m2_G = mean_G.new_zeros(num_groups, dtype=torch.float64)
    for start in range(0, num_groups, groups):
        rows = slice(start, start + groups)
        for piece in x_GN[rows].split(width, dim=1):
            deviation = piece.to(mean_G.dtype) - mean_G[rows, None]
            m2_G[rows] += deviation.square_().sum(-1)
            if x_GN.is_meta:  # no piece holds more than the first
                return m2_G
    return m2_G


def merge(parts: Sequence[Moments]) -> Moments:
    """The moments of the union of disjoint parts, added up in the order given.

    The order is part of the result's last bits: give the parts in rank order, everywhere.
    """
    return functools.reduce(operator.add, parts)


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
        moments.mean.repeat_interleave(per_group).to(dtype),
        moments.variance.repeat_interleave(per_group).to(dtype),
        None if weight is None else weight.to(dtype).repeat(batch),
        None if bias is None else bias.to(dtype).repeat(batch),
        eps=eps,
    )
    return y.view(x.shape)
