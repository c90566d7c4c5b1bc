"""How strongly a render follows its prompt, as the pipelines of its family decide it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..models.family import Control, Guidance
from ..spec.networks import followed
from ..spec.render_spec import RenderSpec


def guidance_scales(
    spec: RenderSpec, facts: ModelFacts, own: Mapping[str, float] = MappingProxyType({})
) -> Guidance:
    """The scales of a render, or of a stage that has scales of its `own`, by their fields.

    Those that the spec gives, else the pipeline's defaults. A scale of 1 is no classifier-free
    guidance, for every family. `check_guidance` and `check_stage_guidance` refuse
    what does not go together.
    """
    spec = spec.model_copy(update=own)
    cfg, neutral = facts.guidance.cfg, facts.guidance.neutral
    scale = _value(cfg, spec, facts) - neutral + 1.0 if cfg else 1.0
    on = scale > 1 and (cfg == "guidance_scale" or spec.negative_prompt is not None)
    embedded = _value("guidance_scale", spec, facts) if facts.guidance.embedded else 0.0
    return Guidance(scale if on else 1.0, embedded, spec.guidance_scale_2, _controls(spec))


def _controls(spec: RenderSpec) -> tuple[Control, ...]:
    return tuple(
        Control(each.scale, each.start, each.end, each.mode, spec.guess_mode)
        for each in followed(spec)
    )


def _value(field: str, spec: RenderSpec, facts: ModelFacts) -> float:
    given: float | None = getattr(spec, field)
    return facts.guidance.defaults.get(field, 1.0) if given is None else given


def check_guidance(spec: RenderSpec, facts: ModelFacts) -> None:
    """The model has the scales that are given, and follows a negative prompt if there is one."""
    cfg, neutral = facts.guidance.cfg, facts.guidance.neutral
    if spec.true_cfg_scale is not None and cfg != "true_cfg_scale":
        raise PlanError(
            f"true_cfg_scale {spec.true_cfg_scale:g}: {facts.family} has none; use guidance_scale"
        )
    if spec.negative_prompt is not None and guidance_scales(spec, facts).num_halves == 1:
        raised = f"raise {cfg} above {neutral:g}, or " if cfg else ""
        raise PlanError(
            f"negative_prompt {spec.negative_prompt!r}: {facts.family} is guided without one; "
            f"{raised}leave it out"
        )


def check_stage_guidance(own: Mapping[str, float], spec: RenderSpec, facts: ModelFacts) -> None:
    """A stage's own guidance scales are the model's; two ranks evaluate a prompt each."""
    if not own:
        return
    # What an unguided stage does not follow, others may.
    followed = guidance_scales(spec, facts, own).num_halves
    kept = {} if followed == 2 else {"negative_prompt": None}
    check_guidance(spec.model_copy(update={**own, **kept}), facts)
    whole = guidance_scales(spec, facts).num_halves
    if spec.guidance_ranks > 1 and followed != whole:
        (name, scale), *_ = own.items()
        raise PlanError(
            f"a stage with {name} {scale:g} evaluates {followed} prompts and the render {whole}, "
            f"and guidance_ranks is {spec.guidance_ranks}; use 1"
        )
