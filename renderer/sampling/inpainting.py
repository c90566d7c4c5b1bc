"""What is outside of a mask stays: noised latents at every step, and pixels at the end.

Element by element, so that it needs no other rank. Shape suffixes: B batch, C channels, T frames,
H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .noise_levels import NoiseLevel
from .solvers import noised


@dataclass(frozen=True)
class Outside:
    """Latents of what is given, a stage's first noise, and `drawn`: 0 where they stay, else to 1.

    As diffusers' inpainting pipelines do it for denoisers that know no mask.
    """

    clean_BCTHW: Tensor
    noise_BCTHW: Tensor
    drawn_B1THW: Tensor

    def kept(self, x_BCTHW: Tensor, level: NoiseLevel | None) -> Tensor:
        """Latents at a level, None for the last: given ones where they stay, noised before it."""
        given = self.clean_BCTHW
        if level is not None:  # some schedules end before all noise is gone
            given = noised(given, self.noise_BCTHW, level)
        return torch.lerp(given, x_BCTHW, self.drawn_B1THW)


def cell_means(x_BCTHW: Tensor, downscale: int, temporal: int) -> Tensor:
    """Means over the pixels of each latent cell; the first frame is alone, `temporal` follow."""
    rows = x_BCTHW.unflatten(-1, (-1, downscale)).unflatten(-3, (-1, downscale))
    cells = rows.mean((-1, -3))
    first, later = cells[:, :, :1], cells[:, :, 1:]
    if not later.shape[2]:
        return first
    return torch.cat([first, later.unflatten(2, (-1, temporal)).mean(3)], dim=2)


def composited(drawn_BCTHW: Tensor, given_BCTHW: Tensor) -> Tensor:
    """Pixels in [-1, 1]: what was drawn over what is given.

    `given` has a further channel, in which 0 says that its pixel stays as it is, bit by bit.
    """
    drawn = drawn_BCTHW.to(given_BCTHW.dtype).clamp(-1, 1)
    return torch.lerp(given_BCTHW[:, :-1], drawn, given_BCTHW[:, -1:])
