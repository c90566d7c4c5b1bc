"""What a training of a LoRA was asked for: a frozen record, kept with what it made."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...spec.render_spec import RenderSpec, parse
from ...spec.stage_spec import LEAST_SHIFT, MOST_GUIDANCE, MOST_SHIFT, StageSpec
from ...spec.units import MOST_FRAMES, MOST_PIXELS
from ..recipe import SCENES, TrainingRecipe, parsed
from ..timesteps import CosMap, LogitNormal, Mode, Timesteps, Uniform

# The projections of attention, by the names that diffusers' trainers give peft.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
# Where they are not said to be others.
STEPS, BATCH, RANK, RATE, METHOD, PICTURES = 1000, 4, 16, 1e-4, "ntk", 100_000
CAPTION_DROPOUT, SAMPLE_STEPS = 0.1, 20
# Names of distributions of times, and how many numbers each may be told.
SWITCHES = {"checkpointing": "--gradient-checkpointing", "aspect_buckets": "--aspect-buckets"}
DENSITIES = {"logit-normal": 2, "mode": 1, "cosmap": 0, "uniform": 0}


class LoraRecipe(TrainingRecipe):
    """All that decides the weights of a LoRA: model, data, size, method, and how long.

    `targets` are names of layers as peft takes them: whole names or their ends. `alpha` over
    `rank` is by what the factors' product is multiplied. `timesteps` is a distribution of times
    and its numbers, as logit-normal=0,1. Captions of pictures that have none are `caption`;
    `trigger` stands for [trigger] in a caption, or before one without. `start` is a LoRA to go on
    from, whose rank and layers are kept. `ema` is the part of an average of all steps' factors that
    stays at a step; the average is then what is written. With `aspect_buckets` each picture is
    learned at the size of about the same area whose shape is nearest. The rest is as a render's.
    Raises `SpecError` through `of`.
    """

    trained = "lora"
    suffix = ".safetensors"

    height: Annotated[int, Field(ge=16, le=MOST_PIXELS)]
    width: Annotated[int, Field(ge=16, le=MOST_PIXELS)]
    num_frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] = 1
    method: str = METHOD
    method_options: dict[str, Any] = Field(default_factory=dict)
    shift: Annotated[float | None, Field(ge=LEAST_SHIFT, le=MOST_SHIFT)] = None
    guidance_scale: Annotated[float, Field(ge=0, le=MOST_GUIDANCE)] = 1.0
    max_sequence_length: Annotated[int | None, Field(ge=1, le=2**20)] = None
    rank: Annotated[int, Field(ge=1, le=4096)] = RANK
    alpha: Annotated[float | None, Field(gt=0, le=1e6)] = None
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = TARGETS
    start: Annotated[str | None, Field(min_length=1)] = None
    ema: Annotated[float | None, Field(ge=0, lt=1)] = None
    aspect_buckets: bool = False
    caption: str | None = None
    trigger: Annotated[str | None, Field(min_length=1)] = None
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = CAPTION_DROPOUT
    timesteps: str = "logit-normal"
    batch: Annotated[int, Field(ge=1, le=2**16)] = BATCH
    rate: Annotated[float, Field(gt=0, le=1)] = RATE
    pictures: Annotated[int, Field(ge=1, le=10**6)] = PICTURES
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    sample_prompt: tuple[str, ...] = ()
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = SAMPLE_STEPS
    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0

    @field_validator("targets", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Names in a list, or parted by commas."""
        return tuple(n.strip() for n in given.split(",")) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits(self) -> LoraRecipe:
        if not all(self.targets):
            raise ValueError("targets: a name is empty; names parted by commas work")
        density(self.timesteps)
        if self.aspect_buckets and self.data == SCENES:
            raise ValueError(
                "aspect_buckets of scenes, which are drawn at the size that is asked for; a folder "
                "of pictures works"
            )
        if self.start is None:
            return self
        plain = {"rank": RANK, "alpha": None, "targets": TARGETS}
        if other := [name for name, value in plain.items() if getattr(self, name) != value]:
            raise ValueError(
                f"start and {other[0]} both given; a LoRA that is gone on from keeps its own, "
                f"so leave out {other[0]}"
            )
        return self

    @property
    def spec(self) -> RenderSpec:
        """The picture or clip that is trained on, as a render names it: one stage, from noise."""
        told = {
            *("model", "revision", "variant", "height", "width", "num_frames", "method"),
            *("method_options", "shift", "max_sequence_length", "dtype", "seed"),
        }
        values = self.model_dump(include=told)
        return parse(values | {"stages": (StageSpec(),), "num_inference_steps": self.sample_steps})

    @property
    def density(self) -> Timesteps:
        """The distribution of times, before the shift."""
        return density(self.timesteps)

    def words(self, name: str, value: Any) -> list[str]:
        """The words that tell a command the value of a field."""
        if name == "width":
            return ["--size", f"{self.width}x{self.height}"]
        if name == "height":
            return []
        if name == "method_options":
            return [word for key in value for word in ("--option", f"{key}={value[key]}")]
        if name == "sample_prompt":
            return [word for text in value for word in ("--sample-prompt", text)]
        if name in SWITCHES:
            return [SWITCHES[name]]
        return super().words(name, value)


def of(values: dict[str, Any]) -> LoraRecipe:
    """A recipe of plain values; raises `SpecError` that names what is wrong and what would work."""
    return parsed(LoraRecipe, values)


def density(text: str) -> Timesteps:
    """The distribution of times that a text names: NAME, or NAME=NUMBER,NUMBER.

    Raises ValueError.
    """
    name, _, tail = text.partition("=")
    if name not in DENSITIES:
        raise ValueError(f"timesteps {text!r}; {', '.join(DENSITIES)} work")
    try:
        numbers = [float(number) for number in tail.split(",")] if tail else []
    except ValueError:
        raise ValueError(f"timesteps {text!r}: {tail!r} is no number; {_example(name)}") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"timesteps {text!r}: not a finite number; {_example(name)}")
    if len(numbers) > DENSITIES[name]:
        raise ValueError(f"timesteps {text!r} has too many numbers; {_example(name)}")
    match name:
        case "logit-normal":
            return LogitNormal(*numbers)
        case "mode":
            return Mode(*numbers)
        case "cosmap":
            return CosMap()
    return Uniform()


def _example(name: str) -> str:
    example = {"logit-normal": "logit-normal=0,1", "mode": "mode=1.29"}.get(name, name)
    return f"{example} works"
