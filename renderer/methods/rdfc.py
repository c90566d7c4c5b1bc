"""Recursive dominant frequency correction alone (UltraImage, arXiv 2512.04504).

The frequencies that make content repeat are slowed down until their period is the canvas, on rows
and columns each by itself; all others stay, and with them the detail.
"""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.frequency_correction import CorrectionOptions, corrected_positions, detection
from ..extrapolation.method import Method, Stage
from ..spec.render_spec import RenderSpec

Options = CorrectionOptions


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage at the picture's size."""

    def of(options: CorrectionOptions) -> Method:
        return Method(
            stages=stages_of(spec, (Stage(),)),
            positions=corrected_positions(options),
            detection=detection(options, of),
        )

    return of(Options.read(spec))
