"""A decoder of any size in a folder of its own: found, described, checked, not loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import ModelError, shown
from .configs import Config, Count, Size, Small, parse, read_json
from .facts import ModelFacts
from .weight_files import check_part, weight_bytes

OWN = "infgen"  # a model's own decoder: the part of its folder of that name
NETWORK = "InfGenDecoder"
PIXELS_A_TOKEN = 8


class DecoderConfig(Config):
    """What a plan reads of an InfGen decoder's config.json."""

    latent_channels: Size
    scaling_factor: float
    shift_factor: float
    width: Annotated[int, Field(ge=1, le=2**14)]
    depth: Count
    trunk_depth: Count
    heads: Small
    mode: Literal["window", "global"]
    window: Small
    pooled: Small
    kernel: Small
    pixel_widths: Annotated[list[Annotated[int, Field(ge=1, le=2**14)]], Field(min_length=2)]
    num_steps: Annotated[int, Field(ge=1, le=1000)]
    largest_scale: Annotated[float, Field(ge=2, le=2**10)] = 8.0


class Scale(Config):
    """How an autoencoder's latents are scaled for the denoiser, where it says so."""

    scaling_factor: float = 1.0
    shift_factor: float | None = None


@dataclass(frozen=True)
class DecoderFacts:
    """What is known of a decoder without loading it."""

    folder: str
    config: DecoderConfig
    weight_bytes: int


def describe(name: str, facts: ModelFacts) -> DecoderFacts:
    """A decoder by its folder, or `infgen` for the model's own; raises `ModelError`.

    So it does for one that was trained for other latents than the model draws.
    """
    folder = Path(facts.folder) / OWN if name == OWN else Path(os.path.expanduser(name))
    if not os.path.isdir(folder):
        kind = "is a file" if os.path.exists(folder) else "is not there"
        whose = f"{facts.folder} has no decoder of its own" if name == OWN else f"{folder} {kind}"
        raise ModelError(f"decoder {shown(name)}: {whose}; a folder of an InfGen decoder works")
    check_part(folder)
    values = read_json(folder / "config.json")
    if values.get("_class_name") != NETWORK:
        raise ModelError(
            f"decoder {folder} holds {shown(values.get('_class_name'))}; {NETWORK} works"
        )
    config = parse(DecoderConfig, values, folder / "config.json")
    if config.width % config.heads:
        raise ModelError(f"decoder {folder}: width {config.width} is no {config.heads} equal heads")
    _check_latents(folder, config, facts)
    return DecoderFacts(str(folder), config, weight_bytes(folder.parent, folder.name))


def _check_latents(folder: Path, config: DecoderConfig, facts: ModelFacts) -> None:
    path = Path(facts.folder) / "vae" / "config.json"
    values: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    scale = parse(Scale, {k: v for k, v in values.items() if k in Scale.model_fields}, path)
    there = (facts.latent.channels, scale.scaling_factor, scale.shift_factor or 0.0)
    known = (config.latent_channels, config.scaling_factor, config.shift_factor)
    if there != known:
        raise ModelError(
            f"decoder {folder} is for latents of {_told(*known)}; those of {facts.folder} have "
            f"{_told(*there)}: use a decoder that was trained for them"
        )


def _told(channels: int, scaling: float, shift: float) -> str:
    return f"{channels} channels, scale {scaling:g} and shift {shift:g}"
