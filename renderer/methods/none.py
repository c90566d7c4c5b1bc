"""The plain model: trained positions, one stage at the picture's own size."""

from __future__ import annotations

from .. import options
from ..family import ModelFacts
from ..method import Method, Stage, stages_of
from ..spec import RenderSpec


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The identity; it has no options."""
    options.read(spec, {})
    return Method(stages=stages_of(spec, (Stage(),)))
