"""Proportional attention: one factor for all heads (Jin et al. 2023, arXiv 2306.08645).

Softmax over more tokens is flatter; a scale of sqrt(ln N / ln N0) keeps its entropy. Lumina, I-Max
and HiFlow use it with positions of their own.
"""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.concentration import proportional
from ..extrapolation.method import Focus, Method, Stage
from ..extrapolation.method_options import MethodOptions
from ..spec.render_spec import RenderSpec


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The plain model with the logits of every head scaled alike."""
    MethodOptions.read(spec)
    return Method(stages=stages_of(spec, (Stage(),)), focus=Focus(constant=proportional))
