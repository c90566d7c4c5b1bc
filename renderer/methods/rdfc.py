"""Recursive dominant frequency correction alone (UltraImage, arXiv 2512.04504).

The frequencies that make content repeat are slowed down until their period is the canvas, on rows
and columns each by itself; all others stay, and with them the detail.
"""

from __future__ import annotations

from .. import options
from ..correction import OPTIONS, corrected_positions
from ..family import ModelFacts
from ..method import Method, Stage, stages_of
from ..spec import RenderSpec


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage at the picture's size; the options are those of `correction.OPTIONS`."""
    positions = corrected_positions(options.read(spec, OPTIONS))
    return Method(stages=stages_of(spec, (Stage(),)), positions=positions)
