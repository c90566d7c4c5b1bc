"""Position interpolation in a cascade (PI: arXiv 2306.15595; restarts: SDEdit, arXiv 2108.01073).

Positions are divided by length / trained length, so no token lies beyond the trained range and
no dominant frequency can repeat; each stage after the first restarts from its predecessor,
enlarged and noised to `start`, which keeps the layout and leaves the detail to be drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import options
from ..family import ModelFacts
from ..method import Axis, Method, Stage, stages_of, trained
from ..spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS = {"cascade": True}
# Sigma at which the second and every later stage restarts.
STARTS = (0.4, 0.3)


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Doubling stages from the trained size up to the picture's, positions interpolated.

    `cascade=false` draws at the picture's size only.
    """
    cascade = options.read(spec, OPTIONS)["cascade"]
    stages = stages_of(spec, doubling(spec, facts) if cascade else (Stage(),))
    return Method(stages=stages, positions=interpolated, absolute=squeeze)


def doubling(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """Stages 1/2^k .. 1/2, 1, the first one no larger than the trained area."""
    ratio = math.sqrt(spec.height * spec.width) / facts.training_size
    levels = max(0, math.ceil(math.log2(ratio) - 1e-9))
    starts = (1.0, *(STARTS[min(i, len(STARTS) - 1)] for i in range(levels)))
    return tuple(Stage(scale=0.5 ** (levels - i), start=start) for i, start in enumerate(starts))


def squeeze(trained_length: int, length: int) -> float:
    """What positions are divided by: length / trained length, and never less than 1."""
    return max(1.0, length / trained_length)


def interpolated(axis: Axis, position_S: Tensor, sigma: float) -> Tensor:
    """Angles at positions squeezed into the trained range; the identity at the trained length."""
    return trained(axis, position_S.double() / squeeze(axis.trained, axis.length), sigma)
