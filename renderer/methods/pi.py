"""Position interpolation in a cascade (PI: arXiv 2306.15595; restarts: SDEdit, arXiv 2108.01073).

Positions are divided by length / trained length, so no token lies beyond the trained range and
no dominant frequency can repeat; each stage after the first restarts from its predecessor,
enlarged and noised to `start`, which keeps the layout and leaves the detail to be drawn.
"""

from __future__ import annotations

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import doubling, stages_of
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import MethodOptions, Switch
from ..models.positions import interpolated, squeeze
from ..spec.render_spec import RenderSpec

# Sigma at which the second and every later stage restarts.
STARTS = (0.4, 0.3)


class Options(MethodOptions):
    """Of position interpolation."""

    cascade: Switch = Field(default=True, description="grow from the trained size; else one stage")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Doubling stages from the trained size up to the picture's, positions interpolated.

    `cascade=false` draws at the picture's size only.
    """
    cascade = Options.read(spec).cascade
    stages = stages_of(spec, doubling(spec, facts, STARTS) if cascade else (Stage(),))
    return Method(
        stages=stages,
        positions=interpolated,
        absolute=squeeze,
        token_spacing=lambda context: context.interpolated,
    )
