"""StageSpec: one resolution of a cascade, as it is asked for.

As text, for a command line, it is `start=0.5,steps=4,lora=lcm.safetensors`: the keys of a preset's
`stages`. A comma parts two keys only where KEY= follows it: values may hold others. A list's key
is given again for each item, and with nothing for none. A line of a preset, `{start: 0.5}`, works.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import shown
from .attend import attend_schedule
from .lora_refs import LoraRef, LoraText
from .values import ValuesError, checked, from_json, from_yaml

LEAST_SHIFT, MOST_SHIFT = 0.01, 1000.0
MOST_GUIDANCE = 1000.0  # numbers much larger end in infinities

EXAMPLE = "scale=1,start=0.5,steps=4"
LISTS, OPTIONS = ("lora", "lora_2"), "scheduler_options"  # given again and again
_PARTED = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9_-]*=)")

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


class Record(BaseModel):
    """Fields of which only switches are true or false: a number is never 1 because it says yes."""

    model_config = CONFIG

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and not _is_switch(cls, str(info.field_name)):
            raise ValueError("a switch where none is; give a value")
        return value


@cache
def _is_switch(record: type[BaseModel], name: str) -> bool:
    def has_switch(kind: Any) -> bool:
        return kind is bool or any(map(has_switch, get_args(kind)))

    return has_switch(record.model_fields[name].annotation)


class StageSpec(Record):
    """One resolution of a cascade.

    `scale` is the stage's size relative to the picture; `start` the noise level (sigma) it
    is restarted from: 1 is pure noise, less continues the stage before, which is enlarged as
    `pixels`, as `latents` or as `latents_linear`; `spacing` are the times of a flow's steps. All
    else is the stage's own where it is given, and the picture's where it is not: `lora: []` is
    none, and `scheduler_options` are changes of the picture's. As text it is KEY=VALUE,KEY=VALUE.
    """

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


def stage_fields(text: str) -> dict[str, Any]:
    """The fields of a stage; raises ValueError for a text that has no KEY=VALUE."""
    if text.lstrip().startswith("{"):
        return _of_preset(text)
    found: dict[str, Any] = {}
    for word in _PARTED.split(text.strip()):
        key, equals, value = word.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"it is not KEY=VALUE,KEY=VALUE, for example {EXAMPLE}")
        if name in LISTS:
            found[name] = [*found.get(name, []), *([value] if value else [])]
        elif name == OPTIONS:
            found[name] = found.get(name, {}) | _option(value)
        elif name in found:
            raise ValueError(f"{shown(name)} is given twice; once works")
        else:
            found[name] = value
    return found


def _of_preset(text: str) -> dict[str, Any]:
    try:
        found = from_json(text)  # which tells letters that YAML's escapes cannot
    except ValuesError:
        try:
            found = from_yaml(text)
        except ValuesError as error:
            raise ValueError(f"{error}; a line of a preset, as {{start: 0.5}}, works") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"it is not KEY=VALUE,KEY=VALUE, for example {EXAMPLE}")
    return dict(found)


def _option(word: str) -> dict[str, Any]:
    """NAME=VALUE of a scheduler, numbers and true or false as what they are."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        example = f"{OPTIONS}=timestep_spacing=trailing"
        raise ValueError(f"{OPTIONS}={shown(word)} is not NAME=VALUE, for example {example}")
    try:
        return {name: from_json(value)}
    except ValuesError:
        return {name: value}
