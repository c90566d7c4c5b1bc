"""StageSpec: one resolution of a cascade, as it is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .attend import attend_schedule

LEAST_SHIFT, MOST_SHIFT = 0.01, 1000.0
MOST_GUIDANCE = 1000.0  # numbers much larger end in infinities

# Validators are built when the first spec is made: `--help` makes none.
CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


Enlargement = Literal["latents", "latents_linear", "pixels"]


def _attending(text: str) -> str:
    attend_schedule(text)
    return text


Attending = Annotated[str, AfterValidator(_attending)]


class StageSpec(BaseModel):
    """One resolution of a cascade.

    `scale` is the stage's size relative to the picture; `start` the noise level (sigma) it
    is restarted from: 1 is pure noise, less continues the stage before, which is enlarged as
    `pixels`, as `latents` or as `latents_linear`; `prompt` and `guidance_scale` the stage's own, if
    they are not the picture's; `attend` what it attends to.
    """

    model_config = CONFIG

    scale: float = Field(default=1.0, gt=0, le=1)
    start: float = Field(default=1.0, ge=0.001, le=1)
    steps: int | None = Field(default=None, ge=1, le=1000)
    shift: float | None = Field(default=None, ge=LEAST_SHIFT, le=MOST_SHIFT)
    enlarge: Enlargement = "pixels"
    prompt: str | None = None
    guidance_scale: float | None = Field(default=None, ge=0, le=MOST_GUIDANCE)
    attend: Attending | None = None
