"""What a checkpoint cannot draw: sizes, frames, prompts, files and LoRAs that it does not have.

All raise `PlanError`, or `ModelError` for what the model's folder lacks.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...checkpoints import lora
from ...checkpoints.facts import ModelFacts
from ...errors import ModelError, PlanError
from ...spec.networks import all_loras, has_stage_loras, loras_of_all
from ...spec.render_spec import RenderSpec


def check_model(spec: RenderSpec, facts: ModelFacts) -> None:
    """Frames and prompts are such as the model can be given."""
    check_frames(spec, facts)
    length, most = spec.max_sequence_length, facts.max_sequence_length
    if length is not None and facts.fixed_sequence_length:
        raise PlanError(
            f"max_sequence_length {length}: the encoders of {facts.family} read {most} tokens, "
            "no more and no fewer; leave it out"
        )
    if length is not None and length > max(most, 512):
        raise PlanError(
            f"max_sequence_length {length} is more than {facts.family} reads; use {most}"
        )


def check_frames(spec: RenderSpec, facts: ModelFacts) -> None:
    """The model draws a clip, and one of so many frames."""
    frames, temporal = spec.num_frames, facts.latent.temporal
    if frames > 1 and not facts.video:
        raise PlanError(f"num_frames {frames}: {facts.family} draws pictures; leave it at 1")
    if (frames - 1) % temporal:
        near = max(1, round((frames - 1) / temporal) * temporal + 1)
        raise PlanError(
            f"num_frames {frames} is not 1 more than a multiple of {temporal}, which "
            f"{facts.family} needs; the nearest that works is {near}"
        )


def check_sides(unit: int, spec: RenderSpec, facts: ModelFacts) -> None:
    """The picture's sides are multiples of `unit` pixels, the method's where not the model's."""
    whose = facts.family
    if unit != facts.latent.unit:
        whose = f"method {spec.method!r} with {facts.family} at this size"
    for name, value in (("height", spec.height), ("width", spec.width)):
        if value % unit:
            near = max(unit, round(value / unit) * unit)
            raise PlanError(
                f"{name} {value} is no multiple of {unit}, which {whose} needs; "
                f"the nearest that works is {near}"
            )


def check_variant(spec: RenderSpec, facts: ModelFacts) -> None:
    """The weights are there as the variant asked for, or without one as plain files."""
    model = Path(facts.folder)
    if spec.variant is not None:
        if not any(model.rglob(f"*.{spec.variant}[.-]*safetensors")):
            raise ModelError(
                f"{model} holds no {spec.variant!r} weights; drop --variant, or fetch them"
            )
        return
    for component in facts.cost.weight_bytes:
        found = [_VARIANT.search(file.name) for file in (model / component).glob("*.safetensors")]
        variants = sorted({each[1] for each in found if each})
        if variants and all(found):
            raise ModelError(
                f"{model / component} holds {' and '.join(variants)} weights only; use --variant "
                f"{variants[0]}, and --dtype for what to compute in"
            )


# MODEL.fp16.safetensors, MODEL.fp16-00001-of-00002.safetensors: how diffusers names variants.
_VARIANT = re.compile(r"\.([A-Za-z0-9_]+)(?:-\d{5}-of-\d{5})?\.safetensors$")


def check_experts(spec: RenderSpec, facts: ModelFacts) -> None:
    """What is given for a second expert has one to go to."""
    for name in ("guidance_scale_2", "lora_2"):
        given = loras_of_all(spec, second=True) if name == "lora_2" else getattr(spec, name)
        if given not in (None, ()) and not facts.num_experts > 1:
            shown = f"{given:g}" if isinstance(given, float) else " ".join(map(str, given))
            raise PlanError(
                f"{name} {shown}: {facts.pipeline} here has one expert; use {name[:-2]}"
            )


def check_stage_loras(spec: RenderSpec) -> None:
    """Prompts are encoded once for all stages: by encoders that no stage's LoRAs change."""
    if not has_stage_loras(spec):
        return
    for each in all_loras(spec):
        if any(key.startswith(("text_encoder", "lora_te")) for key in lora.shapes(each.path)):
            raise PlanError(
                f"{each.path} changes a text encoder, and prompts are encoded once for all stages, "
                "some of which have another lora; a LoRA without text encoders works"
            )
