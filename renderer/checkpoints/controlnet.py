"""A ControlNet in a folder of its own: checked against the model that it guides, not loaded.

A copy of the model's encoder that is shown a picture, and whose features are added to the model's
(arXiv 2302.05543).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError, PlanError, shown
from ..spec.render_spec import RenderSpec
from .configs import read_json
from .facts import ModelFacts
from .weight_files import check_part

# The class of diffusers, and what its config has as the model's network has it, by family.
NETWORKS = {
    "unet": (
        "ControlNetModel",
        ("block_out_channels", "cross_attention_dim", "addition_embed_type", "in_channels"),
    ),
}
# What changes how features are made, and that nobody here knows: what it may be.
KNOWN: dict[str, Any] = {
    "class_embed_type": None,
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "conditioning_channels": 3,
    "global_pool_conditions": False,
}


def folder_of(name: str) -> Path:
    """The folder, from any other one."""
    return Path(name).expanduser().absolute()


def check(spec: RenderSpec, facts: ModelFacts) -> None:
    """Whether a ControlNet, if there is one, is of the model's family and has a picture.

    Raises `PlanError`, `ModelError`.
    """
    name, start, end = spec.controlnet, spec.control_guidance_start, spec.control_guidance_end
    if spec.control is not None and name is None:
        raise PlanError(f"control {spec.control!r} is for a controlnet; name one, or leave it out")
    if name is None:
        return
    if spec.control is None:
        raise PlanError(f"controlnet {name!r} follows a picture; give it by control")
    if start >= end:
        raise PlanError(
            f"control_guidance_start {start:g} is not before control_guidance_end {end:g}"
        )
    check_folder(name, facts)


def check_folder(name: str, facts: ModelFacts) -> None:
    """Whether a folder is a ControlNet of the model's family and size; raises `ModelError`."""
    folder = folder_of(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"controlnet {shown(name)} is no folder with a config.json; name one")
    check_part(folder)
    config = read_json(folder / "config.json")
    if facts.family not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ModelError(
            f"controlnet {shown(name)}: {facts.family} takes none here; models of {known} do"
        )
    kind, alike = NETWORKS[facts.family]
    if config.get("_class_name") != kind:
        raise ModelError(
            f"controlnet {shown(name)} is a {shown(config.get('_class_name'))}, and "
            f"{facts.pipeline} takes a {kind}"
        )
    for option, value in KNOWN.items():
        values = value if isinstance(value, tuple) else (value,)
        if config.get(option, values[0]) not in values:
            raise ModelError(
                f"controlnet {shown(name)}: {option} is {shown(config[option])}; "
                f"Frieze knows {' or '.join(map(str, values))}"
            )
    own = read_json(Path(facts.folder) / "unet" / "config.json")
    for option in alike:
        if config.get(option, own.get(option)) != own.get(option):
            raise ModelError(
                f"controlnet {shown(name)} was made for another model than {facts.folder}: "
                f"{option} is {shown(config.get(option))} there and {shown(own.get(option))} here"
            )
