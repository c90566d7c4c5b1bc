"""A ControlNet in a folder of its own: checked against the model that it guides, not loaded.

A copy of the model's encoder that is shown a picture, and whose features are added to the model's
(arXiv 2302.05543).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError, PlanError, shown
from ..spec.networks import OPTIONS, followed
from ..spec.render_spec import RenderSpec
from .configs import read_json
from .facts import ModelFacts
from .weight_files import check_part


@dataclass(frozen=True)
class Kind:
    """ControlNets of a family: their class in diffusers, and how they go with the network's part.

    Options of `alike` are as in the network's config; those of `known` change how features are
    made, and are one of these values, the first where they are not given.
    """

    class_name: str
    part: str
    alike: tuple[str, ...]
    known: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


KINDS = {
    "unet": Kind(
        "ControlNetModel",
        "unet",
        ("block_out_channels", "cross_attention_dim", "addition_embed_type", "in_channels"),
        {
            "class_embed_type": (None,),
            "controlnet_conditioning_channel_order": ("rgb", "bgr"),
            "conditioning_channels": (3,),
            "global_pool_conditions": (False,),
        },
    ),
    "flux": Kind(
        "FluxControlNetModel",
        "transformer",
        (
            "num_attention_heads",
            "attention_head_dim",
            "joint_attention_dim",
            "pooled_projection_dim",
            "axes_dims_rope",
            "in_channels",
        ),
        {"conditioning_embedding_channels": (None, 16)},
    ),
}


def folder_of(name: str) -> Path:
    """The folder, from any other one."""
    return Path(name).expanduser().absolute()


def check(spec: RenderSpec, facts: ModelFacts) -> None:
    """Whether ControlNets, if there are any, are of the model's family and have pictures.

    Raises `PlanError`, `ModelError`.
    """
    if not spec.controlnet:
        _check_unused(spec)
        return
    name = spec.controlnet[0]
    if spec.guess_mode and facts.family != "unet":
        raise PlanError(f"guess_mode is for a controlnet of a U-Net, and this is {facts.family}")
    if not spec.control:
        raise PlanError(f"controlnet {name!r} follows a picture; give it by control")
    configs = {name: check_folder(name, facts) for name in dict.fromkeys(spec.controlnet)}
    for each in followed(spec):
        if each.start >= each.end:
            raise PlanError(
                f"control_guidance_start {each.start:g} is not before control_guidance_end "
                f"{each.end:g}"
            )
        _check_mode(each.controlnet, each.mode, configs[each.controlnet])


def _check_unused(spec: RenderSpec) -> None:
    """Nothing is said of a ControlNet where there is none."""
    if spec.control:
        raise PlanError(
            f"control {spec.control[0]!r} is for a controlnet; name one, or leave it out"
        )
    if spec.guess_mode:
        raise PlanError("guess_mode is for a controlnet; name one, or leave it out")
    for own in OPTIONS:
        value = getattr(spec, own)
        if value != type(spec).model_fields[own].default:
            told = ", ".join("none" if each is None else f"{each:g}" for each in value)
            raise PlanError(f"{own} {told} is for a controlnet; name one, or leave it out")


def check_folder(name: str, facts: ModelFacts) -> Mapping[str, Any]:
    """The config of a ControlNet of the model's family and size; raises `ModelError`."""
    folder = folder_of(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"controlnet {shown(name)} is no folder with a config.json; name one")
    check_part(folder)
    config = read_json(folder / "config.json")
    if facts.family not in KINDS:
        known = ", ".join(KINDS)
        raise ModelError(
            f"controlnet {shown(name)}: {facts.family} takes none here; models of {known} do"
        )
    kind = KINDS[facts.family]
    if config.get("_class_name") != kind.class_name:
        raise ModelError(
            f"controlnet {shown(name)} is a {shown(config.get('_class_name'))}, and "
            f"{facts.pipeline} takes a {kind.class_name}"
        )
    for option, values in kind.known.items():
        if config.get(option, values[0]) not in values:
            raise ModelError(
                f"controlnet {shown(name)}: {option} is {shown(config[option])}; "
                f"Frieze knows {' or '.join(map(str, values))}"
            )
    own = read_json(Path(facts.folder) / kind.part / "config.json")
    for option in kind.alike:
        if config.get(option, own.get(option)) != own.get(option):
            raise ModelError(
                f"controlnet {shown(name)} was made for another model than {facts.folder}: "
                f"{option} is {shown(config.get(option))} there and {shown(own.get(option))} here"
            )
    if config.get("conditioning_embedding_channels") and config.get("patch_size") != 2:
        raise ModelError(
            f"controlnet {shown(name)}: patch_size is {shown(config.get('patch_size'))}; "
            "Frieze knows 2 where pixels are seen"
        )
    if config.get("guidance_embeds") and facts.family == "flux" and not facts.guidance.embedded:
        raise ModelError(
            f"controlnet {shown(name)} is told a guidance_scale, and {facts.folder} is not; "
            "use a ControlNet of a model without guidance_embeds"
        )
    return config


def _check_mode(name: str, mode: int | None, config: Mapping[str, Any]) -> None:
    """A union is told which of its kinds, others are not."""
    number = config.get("num_mode")
    if number is None and mode is not None:
        raise PlanError(
            f"control_mode {mode} is for a union of ControlNets, and {shown(name)} is one kind"
        )
    if number is not None and (mode is None or not mode < number):
        given = "none is given" if mode is None else f"{mode} is not"
        raise PlanError(
            f"controlnet {shown(name)} has kinds 0 to {number - 1} and {given}; give control_mode"
        )
