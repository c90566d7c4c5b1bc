"""Overlapping tiles as one canvas: weights that add up to 1, and the low band of a map.

Shape suffixes: N tiles along a side, L cells of the canvas along it, H rows, W columns of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def taper(size: int, overlap: int) -> Tensor:
    """How much a tile's cells count along a side before others are known: float64 [size].

    It rises from both edges over `overlap` cells by half a cosine, and is never 0.
    """
    at = torch.arange(size, dtype=torch.float64) + 0.5
    inside = torch.minimum(at, size - at) / max(overlap, 1)
    return 0.5 - 0.5 * torch.cos(math.pi * inside.clamp(max=1))


def partition(starts: Sequence[int], size: int, length: int, overlap: int) -> Tensor:
    """Each tile's part of its own cells along a side, float64 [N, size].

    The parts of a cell, of all tiles that cover it, add up to 1.
    """
    tapered = taper(size, overlap)
    total_L = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total_L[start : start + size] += tapered
    return torch.stack([tapered / total_L[start : start + size] for start in starts])


def add_weighted(total: Tensor, tile: Tensor, weight_H: Tensor, weight_W: Tensor) -> None:
    """Adds a tile [..., H, W], times its parts of rows and columns, onto `total` in place."""
    total.addcmul_(tile, (weight_H[:, None] * weight_W).to(total))


def low_band(x: Tensor, cutoff: float, order: int = 4) -> Tensor:
    """Frequencies of maps [..., H, W] times 1 / (1 + (f / cutoff)^(2 order)), in their dtype.

    A Butterworth filter; f is in parts of Nyquist's frequency. Maps go on beyond their edges as in
    a mirror, so that opposite edges do not mix.
    """
    height, width = x.shape[-2:]
    mirrored = torch.cat([x, x.flip(-1)], dim=-1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], dim=-2)
    rows = 2 * torch.fft.fftfreq(2 * height, dtype=torch.float64)
    columns = 2 * torch.fft.rfftfreq(2 * width, dtype=torch.float64)
    square = rows[:, None].square() + columns.square()
    gain = 1 / (1 + (square / cutoff**2) ** order)
    filtered = torch.fft.rfft2(mirrored) * gain.to(x)
    return torch.fft.irfft2(filtered, s=mirrored.shape[-2:])[..., :height, :width]


def hats(places: Sequence[float], length: int) -> Tensor:
    """The [length, N] matrix of linear interpolation at cells 0.5, 1.5, ... from ascending places.

    Beyond the first and the last place their values go on. Float64.
    """
    known = torch.tensor(places, dtype=torch.float64)
    at = torch.arange(length, dtype=torch.float64) + 0.5
    if len(known) == 1:
        return torch.ones(length, 1, dtype=torch.float64)
    right = torch.searchsorted(known, at).clamp(1, len(known) - 1)
    part = ((at - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
    found = torch.zeros(length, len(known), dtype=torch.float64)
    found.scatter_(1, right[:, None], part[:, None])
    return found.scatter_add_(1, right[:, None] - 1, 1 - part[:, None])
