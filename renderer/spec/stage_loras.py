"""All LoRAs that a render names: the picture's, and those of its stages."""

from __future__ import annotations

from .lora_refs import LoraRef
from .render_spec import RenderSpec


def has_stage_loras(spec: RenderSpec) -> bool:
    """Whether a stage has LoRAs of its own, or none where the picture has some."""
    stages = spec.stages or ()
    return any(stage.lora is not None or stage.lora_2 is not None for stage in stages)


def all_loras(spec: RenderSpec) -> tuple[LoraRef, ...]:
    """Those of every denoiser."""
    return loras_of_all(spec, second=False) + loras_of_all(spec, second=True)


def loras_of_all(spec: RenderSpec, *, second: bool) -> tuple[LoraRef, ...]:
    """Those of the denoiser, or of a `second` one, each once."""
    stages = spec.stages or ()
    own = (ref for stage in stages for ref in (stage.lora_2 if second else stage.lora) or ())
    return tuple(dict.fromkeys((*(spec.lora_2 if second else spec.lora), *own)))
