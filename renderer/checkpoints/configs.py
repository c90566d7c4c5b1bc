"""Config files of a checkpoint as records: what a plan reads of them, with bounds, in one place.

Each family states the config of its own network; what is shared is here. Whatever lacks a key, has
one of another type or a size that no model has becomes one `ModelError` that names file and key.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import ModelError, shown
from ..input_files import fault
from ..spec.values import checked

Size = Annotated[int, Field(ge=1, le=2**20)]  # features, channels, heads, pixels


Small = Annotated[int, Field(ge=1, le=64)]  # a patch's side, a stage's factor


Count = Annotated[int, Field(ge=0, le=1024)]  # layers


Sizes = Annotated[list[Size], Field(min_length=1, max_length=12)]  # one for each stage


# Whole numbers of a config that a library builds a network from, whatever they are called; and
# those that are numbers of layers.
MOST_SIZE, MOST_LAYERS = 2**24, 1024


_LAYERS = re.compile(r"(^|_)(layers|depth|blocks)(_|$)")


_ANY_NUMBER = re.compile(r"theta|base|length")  # of rotary frequencies, and of "no limit"


T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """The keys that are read of a JSON file; others are for the library that builds the part."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Hints(Config):
    """What frieze.json may say of a checkpoint that its other files do not."""

    training_size: Size | None = None
    training_frames: Annotated[int, Field(ge=1, le=2**16)] | None = None
    max_sequence_length: Annotated[int, Field(ge=1, le=2**16)] | None = None
    square: bool = False
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None


class Index(Config):
    """model_index.json; what is no option of the pipeline is one of its parts."""

    model_config = ConfigDict(extra="allow")

    pipeline: str = Field(alias="_class_name")
    boundary_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    expand_timesteps: bool | None = None
    is_distilled: bool | None = None

    @property
    def parts(self) -> dict[str, tuple[str | None, str | None]]:
        """Library and class of each part by name; None of one that is left out."""
        found = (self.model_extra or {}).items()
        return {name: (part[0], part[1]) for name, part in found if isinstance(part, list)}

    def has(self, name: str) -> bool:
        """Whether a part of that name is listed, and not as left out."""
        return self.parts.get(name, (None, None))[0] is not None


class Upcast(Config):
    """Whether an autoencoder says that it overflows in half precision."""

    force_upcast: bool | None = None


class PictureVae(Config):
    """An autoencoder of pictures, as AutoencoderKL."""

    latent_channels: Size
    block_out_channels: Sizes
    decoder_block_out_channels: Sizes | None = None
    latents_mean: list[float] | None = None

    @property
    def downscale(self) -> int:
        """Pixels of a latent cell on a side."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def decoder_channels(self) -> int:
        """Channels of the decoder's last layers."""
        return (self.decoder_block_out_channels or self.block_out_channels)[0]


class VideoVae(Config):
    """A causal autoencoder of clips, as AutoencoderKLWan."""

    z_dim: Size
    base_dim: Size
    decoder_base_dim: Size | None = None
    dim_mult: Annotated[list[Small], Field(min_length=1, max_length=12)]
    patch_size: Small | None = None
    temperal_downsample: Annotated[list[bool], Field(max_length=12)] = []

    @property
    def downscale(self) -> int:
        """Pixels of a latent cell on a side."""
        return int(2 ** (len(self.dim_mult) - 1) * (self.patch_size or 1))


class ImageEncoder(Config):
    """A picture's encoder, as CLIP's."""

    image_size: Size
    patch_size: Size


class Heads(Config):
    """What transformers have in common: attention heads."""

    num_attention_heads: Size
    attention_head_dim: Size

    @property
    def hidden(self) -> int:
        """Features of a token."""
        return self.num_attention_heads * self.attention_head_dim


_Shift = Annotated[float, Field(ge=0.01, le=1e4)]


_Mu = Annotated[float, Field(ge=-10, le=10)]  # a shift's logarithm


_Tokens = Annotated[int, Field(ge=1, le=2**31)]


_Beta = Annotated[float, Field(gt=0, lt=1)]


class SchedulerConfig(Config):
    """scheduler_config.json; what is not stated is the class' own."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: _Beta | None = None
    beta_end: _Beta | None = None
    trained_betas: Annotated[list[_Beta], Field(max_length=100_000)] | None = None
    shift: _Shift | None = None
    flow_shift: _Shift | None = None
    base_shift: _Mu | None = None
    max_shift: _Mu | None = None
    base_image_seq_len: _Tokens = 256
    max_image_seq_len: _Tokens = 4096
    shift_terminal: Annotated[float, Field(ge=0, lt=1)] | None = None
    use_dynamic_shifting: bool | None = None
    use_flow_sigmas: bool | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    use_lu_lambdas: bool | None = None
    skip_prk_steps: bool | None = None
    clip_sample: bool | None = None
    solver_order: Annotated[int, Field(ge=1, le=3)] | None = None
    solver_type: str | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    disable_corrector: Annotated[list[int], Field(max_length=1000)] | None = None
    final_sigmas_type: str | None = None
    timestep_spacing: str | None = None
    steps_offset: Annotated[int, Field(ge=0, le=1000)] | None = None
    sigma_min: Annotated[float, Field(gt=0, le=1e6)] | None = None
    sigma_max: Annotated[float, Field(gt=0, le=1e6)] | None = None

    @field_validator("max_image_seq_len")
    @classmethod
    def _is_more(cls, most: int, about: Any) -> int:
        if most <= about.data.get("base_image_seq_len", 256):
            raise ValueError("more than base_image_seq_len works")
        return most


def read(kind: type[T], path: Path) -> T:
    """The record of a JSON file; raises `ModelError` that names the file and the key."""
    return parse(kind, read_json(path), path)


def parse(kind: type[T], values: Mapping[str, Any], path: Path) -> T:
    """The record of values that were read from a file; raises `ModelError`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(map(str, first["loc"][:1]))
    if first["type"] == "missing":
        raise ModelError(f"{path} lacks {key!r}; fetch the model anew")
    raise ModelError(f"{path}: {key} is {shown(values.get(key))}; {first['msg']}")


def hints(folder: Path) -> Hints:
    """What frieze.json says, if there is one."""
    path = folder / "frieze.json"
    return read(Hints, path) if path.is_file() else Hints()


def index_of(folder: Path) -> Index:
    """A folder's model_index.json; raises `ModelError`.

    So it does unless every part is [library, class], or [null, null].
    """
    path = folder / "model_index.json"
    found = read(Index, path)
    for name, part in (found.model_extra or {}).items():
        if isinstance(part, list) and not _is_part(part):
            raise ModelError(f"{path}: {name} is {shown(part)}; a library and a class work")
    return found


def _is_part(part: list[Any]) -> bool:
    return len(part) == 2 and all(each is None or isinstance(each, str) for each in part)


def check_sizes(folder: Path) -> None:
    """Raise `ModelError` for a part's config with a number that nothing could be built from.

    Libraries would make as many layers, or tables as long, before they find that no weights fit.
    """
    for path in sorted(folder.glob("*/config.json")):
        for key, value in read_json(path).items():
            _check_size(path, key, value)


def _check_size(path: Path, key: str, value: Any) -> None:
    if isinstance(value, dict):
        for inner, each in value.items():
            _check_size(path, inner, each)
    elif isinstance(value, list):
        for each in value:
            _check_size(path, key, each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ModelError(f"{path}: {key} is {value}, which is no number")
    elif isinstance(value, int) and not _ANY_NUMBER.search(key):
        most = MOST_LAYERS if _LAYERS.search(key) else MOST_SIZE
        if abs(value) > most:
            raise ModelError(f"{path}: {key} is {shown(value)}; at most {most} can be built")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; raises `ModelError` that names the file."""
    if not os.path.lexists(path):
        raise ModelError(f"{path} is missing; a folder in diffusers layout has it")
    if (why := fault(path)) is not None:
        raise ModelError(f"{path} cannot be read as JSON ({why}); fetch the model anew")
    try:
        values = checked(json.loads(path.read_text(encoding="utf-8")), any_number=True)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); fetch the model anew") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds {type(values).__name__}; a JSON object works")
    return values
