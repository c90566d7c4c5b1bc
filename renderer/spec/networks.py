"""Networks beside the model that a spec names: LoRAs, also of stages, and ControlNets."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SpecError
from .lora_refs import LoraRef
from .render_spec import RenderSpec

# Fields that say nothing without a ControlNet.
OPTIONS = (
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
    "control_mode",
)


@dataclass(frozen=True)
class FollowedPicture:
    """A picture, the folder of the ControlNet that sees it, and how that counts."""

    controlnet: str
    picture: str
    scale: float
    start: float
    end: float
    mode: int | None


def followed(spec: RenderSpec) -> tuple[FollowedPicture, ...]:
    """What a spec's ControlNets follow, in their order; none without ControlNet or picture.

    Each field has one value for all, or one for each: `SpecError` says which has not.
    """
    if not (spec.controlnet and spec.control):
        return ()
    longest = max("controlnet", "control", key=lambda name: len(getattr(spec, name)))
    number = len(getattr(spec, longest))
    values = {name: getattr(spec, name) for name in ("controlnet", "control", *OPTIONS)}
    values["control_mode"] = values["control_mode"] or (None,)
    for name, given in values.items():
        if len(given) not in (1, number):
            raise SpecError(
                f"{name} is given {len(given)} times, and {longest} "
                f"{'once' if number == 1 else f'{number} times'}; give one for all of them, or one "
                "for each"
            )
    each = (given * number if len(given) == 1 else given for given in values.values())
    return tuple(FollowedPicture(*one) for one in zip(*each, strict=True))


def picture_names(spec: RenderSpec) -> tuple[str, ...]:
    """What the pictures are called among all that a render starts from, in their order."""
    return tuple(f"control-{index}" if index else "control" for index in range(len(spec.control)))


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
