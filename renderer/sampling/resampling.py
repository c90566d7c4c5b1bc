"""Steps that are drawn again: what is redrawn in part is made to fit what stays.

Where what stays is put back at each level, what is drawn hears of it one step late. Drawn anew from
the level that the step began with, it has it from the start (RePaint, arXiv 2201.09865, sec. 4.2;
its jumps have the length of a step here, of which there are fewer). Needs no other rank.

Of 14 scenes of the demo whose middle third was given, drawn at the trained size, one sun had 0.71
drawn once, 0.79 four times, 0.93 eight and sixteen times; down to 0.3 of noise in place of 0.5 it
was 0.86, in a fifth more time. At six times that size by the decoder, of 12: from edges drawn out
(strength 0.6) 0.50, from noise 0.83 either way, the horizon at most 4.7 % of the side apart at the
borders drawn once and 2.3 % eight times; in the scenes themselves that is 2.2 %
(tests/bench/results/quality_outpaint.md).
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .noise_levels import NoiseLevel

if TYPE_CHECKING:
    from torch import Tensor

# Of a picture that is drawn around, unless told otherwise: see tests/bench/quality_outpaint.py.
RESAMPLINGS = 8
# The part of noise in latents down to which steps are drawn again: below, there is a layout.
LAYOUT = 0.5


def draws(levels: Sequence[NoiseLevel], resamplings: int) -> tuple[int, ...]:
    """How often each step between levels is drawn: those with much noise so often.

    Not the first one, at whose level next to nothing can be told of what stays.
    """
    noise = [level.sigma / (level.alpha + level.sigma) for level in levels]
    return tuple(
        resamplings if index and least >= LAYOUT else 1 for index, least in enumerate(noise[1:])
    )


def noised_again(
    x_BCTHW: Tensor, here: NoiseLevel, there: NoiseLevel, noise_BCTHW: Tensor
) -> Tensor:
    """Latents at a level, of those that a step from it left `there`.

    With r = alpha / alpha', x = r x' + sqrt(sigma^2 - r^2 sigma'^2) eps: RePaint's equation 7 for
    any levels.
    """
    ratio = here.alpha / there.alpha
    added = max(0.0, here.sigma**2 - (ratio * there.sigma) ** 2)
    return ratio * x_BCTHW + math.sqrt(added) * noise_BCTHW
