"""EAAC alone: heads concentrated by their own entropy (UltraImage, arXiv 2512.04504, sec. 4.2).

Positions are the trained ones, so that what it does to blur is seen apart from what other edits
do to repetition. The first step of a stage measures; all later ones are concentrated.
"""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.concentration import ConcentrationOptions
from ..extrapolation.method import Method, Stage
from ..spec.render_spec import RenderSpec

Options = ConcentrationOptions


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The plain model with concentrated heads."""
    return Method(stages=stages_of(spec, (Stage(),)), focus=Options.read(spec).focus())
