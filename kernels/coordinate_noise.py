"""Normal noise that is a function of where on the canvas it lies: any cut of it is the same.

A hash of seed, channel, row and column gives two uniform numbers, and Box and Muller a normal one.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_FACTORS = (0x7FEB352D, 0x31848BAB)  # odd, below 2^31: products of words stay within int64


def noise(
    seed: int,
    channels: int,
    rows: range,
    columns: range,
    *,
    stream: int = 0,
    around: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers [C, H, W] at these rows and columns of an endless canvas.

    Each `stream` of a seed is a canvas of its own. Beyond so many rows and columns `around`, and
    before the first, it begins anew.
    """
    places_H, places_W, places_C = (
        torch.arange(each.start, each.stop, device=device)
        for each in (rows, columns, range(channels))
    )
    if around is not None:
        places_H, places_W = places_H % around[0], places_W % around[1]
    words = []
    for lane in (1, 2):
        key = _mixed_int(seed & _WORD)
        for part in (seed >> 32, stream, lane):
            key = _mixed_int(key ^ _mixed_int(part + 0x9E37))
        key_C = _mixed(places_C + key)[:, None, None]
        row_CH = _mixed(_mixed(places_H + 0x5BD1)[:, None] ^ key_C)
        # Not row + column: two rows would then share runs of their noise.
        words.append(_mixed(_mixed(row_CH ^ _mixed(places_W + 0xC2B2)) ^ key_C))
    first, second = ((word.double() + 0.5) / (_WORD + 1) for word in words)
    return ((-2 * first.log()).sqrt() * (2 * math.pi * second).cos()).to(dtype)


def _mixed(word: Tensor) -> Tensor:
    """A word of 32 bits whose every bit depends on every bit of another, in int64."""
    word = word & _WORD
    for shift, factor in zip((16, 15), _FACTORS, strict=True):
        word = ((word ^ (word >> shift)) * factor) & _WORD
    return word ^ (word >> 16)


def _mixed_int(word: int) -> int:
    """The same of a plain number."""
    return int(_mixed(torch.tensor(word & _WORD)))
