"""The plain model: trained positions, one stage at the picture's own size."""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import MethodOptions
from ..spec.render_spec import RenderSpec


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The identity; it has no options."""
    MethodOptions.read(spec)
    return Method(stages=stages_of(spec, (Stage(),)))
