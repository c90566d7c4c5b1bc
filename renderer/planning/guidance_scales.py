"""How strongly a render follows its prompt, as the pipelines of its family decide it."""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..models.family import Guidance
from ..spec.render_spec import RenderSpec


def guidance_scales(spec: RenderSpec, facts: ModelFacts) -> Guidance:
    """The scales in use, as the pipelines decide: given, else the family's own.

    Raises `PlanError`.
    """
    told = facts.guidance
    if spec.true_cfg_scale is not None and told.cfg != "true_cfg_scale":
        raise PlanError(
            f"true_cfg_scale {spec.true_cfg_scale:g}: {facts.family} has none; use guidance_scale"
        )

    def value(name: str) -> float:
        given: float | None = getattr(spec, name)
        return told.defaults.get(name, 1.0) if given is None else given

    scale = value(told.cfg) - told.neutral + 1.0 if told.cfg else 1.0
    on = scale > 1 and (told.cfg == "guidance_scale" or spec.negative_prompt is not None)
    if spec.negative_prompt is not None and not on:
        remedy = (
            f"raise {told.cfg} above {told.neutral:g}, or leave it out"
            if told.cfg
            else "leave it out"
        )
        raise PlanError(
            f"negative_prompt {spec.negative_prompt!r}: {facts.family} is guided without one; "
            + remedy
        )
    for name in ("guidance_scale_2", "lora_2"):
        own = getattr(spec, name)
        if own not in (None, ()) and not facts.num_experts > 1:
            shown = f"{own:g}" if isinstance(own, float) else " ".join(own)
            raise PlanError(
                f"{name} {shown}: {facts.pipeline} here has one expert; use {name[:-2]}"
            )
    embedded = value("guidance_scale") if told.embedded else 0.0
    return Guidance(scale if on else 1.0, embedded, spec.guidance_scale_2)


def of_stage(scale: float | None, spec: RenderSpec, facts: ModelFacts) -> Guidance:
    """The same with a guidance scale of a stage's own, if it has one.

    Raises `PlanError` where that would evaluate the network for another number of prompts.
    """
    whole = guidance_scales(spec, facts)
    if scale is None:
        return whole
    own = guidance_scales(spec.model_copy(update={"guidance_scale": scale}), facts)
    if own.num_halves != whole.num_halves:
        raise PlanError(
            f"a stage with guidance_scale {scale:g} evaluates {own.num_halves} prompts and the "
            f"render {whole.num_halves}; keep both above 1, or neither"
        )
    return own
