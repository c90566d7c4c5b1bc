"""How strongly a render follows its prompt, as the pipelines of its family decide it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..checkpoints.facts import ModelFacts
from ..models.family import Guidance
from ..spec.render_spec import RenderSpec


def guidance_scales(
    spec: RenderSpec, facts: ModelFacts, own: Mapping[str, float] = MappingProxyType({})
) -> Guidance:
    """The scales of a render, or of a stage that has scales of its `own`, by their fields.

    Those that the spec gives, else the pipeline's defaults. A scale of 1 is no classifier-free
    guidance, for every family. `checks.check_guidance` and `checks.check_stage_guidance` refuse
    what does not go together.
    """
    spec = spec.model_copy(update=own)
    cfg, neutral = facts.guidance.cfg, facts.guidance.neutral
    scale = _value(cfg, spec, facts) - neutral + 1.0 if cfg else 1.0
    on = scale > 1 and (cfg == "guidance_scale" or spec.negative_prompt is not None)
    embedded = _value("guidance_scale", spec, facts) if facts.guidance.embedded else 0.0
    return Guidance(scale if on else 1.0, embedded, spec.guidance_scale_2)


def _value(field: str, spec: RenderSpec, facts: ModelFacts) -> float:
    given: float | None = getattr(spec, field)
    return facts.guidance.defaults.get(field, 1.0) if given is None else given
