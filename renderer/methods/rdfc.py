"""Recursive dominant frequency correction alone (UltraImage, arXiv 2512.04504).

The frequencies that make content repeat are slowed down until their period is the canvas, on rows
and columns each by itself; all others stay, and with them the detail.
"""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequency_correction import OPTIONS, corrected_positions
from ..extrapolation.method import Method, Stage
from ..spec import method_options
from ..spec.render_spec import RenderSpec


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage at the picture's size; the options are those of `correction.OPTIONS`."""
    positions = corrected_positions(method_options.read(spec, OPTIONS))
    return Method(stages=stages_of(spec, (Stage(),)), positions=positions)
