"""StageSpec: one resolution of a cascade, as it is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from .attend import attend_schedule
from .lora_refs import LoraRef, LoraText
from .stage_words import stage_fields
from .values import checked

LEAST_SHIFT, MOST_SHIFT = 0.01, 1000.0
MOST_GUIDANCE = 1000.0  # numbers much larger end in infinities

# Validators are built when the first spec is made: `--help` makes none.
CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


Enlargement = Literal["latents", "latents_linear", "pixels"]
# Times of a flow's steps before the shift: the checkpoint's, or 1, 1 - 1/n, ... 1/n.
Spacing = Literal["checkpoint", "even"]
Guided = Annotated[float, Field(ge=0, le=MOST_GUIDANCE)]


def _attending(text: str) -> str:
    attend_schedule(text)
    return text


Attending = Annotated[str, AfterValidator(_attending)]


class StageSpec(BaseModel):
    """One resolution of a cascade.

    `scale` is the stage's size relative to the picture; `start` the noise level (sigma) it
    is restarted from: 1 is pure noise, less continues the stage before, which is enlarged as
    `pixels`, as `latents` or as `latents_linear`; `spacing` are the times of a flow's steps. All
    else is the stage's own where it is given, and the picture's where it is not: `lora: []` is
    none, and `scheduler_options` are changes of the picture's. As text it is KEY=VALUE,KEY=VALUE.
    """

    model_config = CONFIG

    scale: float = Field(default=1.0, gt=0, le=1)
    start: float = Field(default=1.0, ge=0.001, le=1)
    steps: int | None = Field(default=None, ge=1, le=1000)
    shift: float | None = Field(default=None, ge=LEAST_SHIFT, le=MOST_SHIFT)
    spacing: Spacing = "checkpoint"
    scheduler: str | None = Field(default=None, min_length=1)
    scheduler_options: dict[str, Any] = Field(default_factory=dict)
    enlarge: Enlargement = "pixels"
    prompt: str | None = None
    guidance_scale: Guided | None = None
    true_cfg_scale: Guided | None = None
    lora: tuple[LoraText, ...] | None = None
    lora_2: tuple[LoraText, ...] | None = None
    attend: Attending | None = None

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return stage_fields(value) if isinstance(value, str) else value

    @field_validator("scheduler_options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        return dict(checked(options, any_number=True))

    @property
    def loras(self) -> tuple[LoraRef, ...]:
        """The files that are the stage's own."""
        return (*(self.lora or ()), *(self.lora_2 or ()))
