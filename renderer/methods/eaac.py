"""EAAC alone: heads concentrated by their own entropy (UltraImage, arXiv 2512.04504, sec. 4.2).

Positions are the trained ones, so that what it does to blur is seen apart from what other edits
do to repetition. The first step of a stage measures; all later ones are concentrated.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.concentration import concentration
from ..extrapolation.method import Focus, Method, Stage
from ..spec import method_options
from ..spec.render_spec import RenderSpec

OPTIONS: dict[str, Any] = {"least": 1.0, "most": 1.3, "power": 2.0, "pooled": 0}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The plain model with concentrated heads; `pooled` blocks of that side, 0: tokens."""
    chosen = dict(method_options.read(spec, OPTIONS))
    pooled = int(chosen.pop("pooled")) or None
    focus = Focus(scale=partial(concentration, **chosen), pooled=pooled)
    return Method(stages=stages_of(spec, (Stage(),)), focus=focus)
