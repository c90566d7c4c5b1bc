"""What a training was asked for: a frozen record, kept with what it made; and a decoder's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..checkpoints.decoder import PIXELS_A_TOKEN
from ..errors import SpecError, shown
from ..spec.render_spec import RenderSpec, parse
from ..spec.values import is_text, texts

SCENES = "scenes"
AnyRecipe = TypeVar("AnyRecipe", bound="TrainingRecipe")
StageName = Literal["flow", "distillation", "adversarial"]
# Each begins with what those before it have learned, the first with a network that may be new,
# or, where it is no flow, with one that a flow has trained: the recipe's start.
STAGES: tuple[tuple[StageName, ...], ...] = (
    ("flow",),
    ("flow", "distillation"),
    ("flow", "adversarial"),
    ("flow", "distillation", "adversarial"),
    ("distillation",),
    ("adversarial",),
    ("distillation", "adversarial"),
)
# Where they are not said to be others; a training by the clock, unless steps are asked for.
MINUTES, BATCH, CROP, SCALE, RATE, PICTURES = 30.0, 8, 64, 8.0, 2e-3, 1000


class TrainingRecipe(BaseModel):
    """What all trainings are told: from which model and data, and how long.

    `minutes` are those spent in steps, over all resumptions; else there are `steps`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    trained: ClassVar[str]  # what `frieze train` calls it
    suffix: ClassVar[str | None] = None  # of a file that --out may be

    model: str
    data: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    variant: str | None = None
    minutes: Annotated[float | None, Field(gt=0, le=1e6)] = None
    steps: Annotated[int | None, Field(ge=1, le=10**9)] = None

    @model_validator(mode="after")
    def _is_told_how_long(self) -> Self:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("minutes and steps both given; use one")
        return self

    @model_validator(mode="after")
    def _is_text(self) -> Self:
        for name, value in self:
            if not all(map(is_text, texts(value))):
                raise ValueError(f"{name} = {shown(value)}: no text in UTF-8, or with a zero byte")
        return self

    def differences(self, other: dict[str, Any]) -> list[str]:
        """What a recorded recipe has otherwise, a clause each."""
        own = self.model_dump(mode="json")
        return [
            f"{name}: {shown(other.get(name))}, now {shown(value)}"
            for name, value in own.items()
            if other.get(name) != value
        ]

    def command(self, out: Path, place: tuple[str, ...] = ()) -> str:
        """The command that goes on with it, at the same `place`: words for the workers."""
        words = ["frieze", "train", self.trained, "--out", str(out.absolute())]
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None and value != field.default:
                words += self.words(name, value)
        return shlex.join([*words, *place, "--continue"])

    def words(self, name: str, value: Any) -> list[str]:
        """The words that tell a command the value of a field."""
        told = ",".join(value) if isinstance(value, tuple) else str(value)
        return ["--" + name.replace("_", "-"), told]


class Recipe(TrainingRecipe):
    """All that decides the weights of a decoder: model, data, sizes, and how long.

    `crop` is pixels a side, `scale` the largest enlargement, `rate` AdamW's at its highest,
    `pictures` the most that are learned from, `start` the folder of a decoder whose shape and
    weights are those at first. `stages` are objectives, one after the other. Raises `SpecError`
    through `of`.
    """

    trained = "decoder"

    start: Annotated[str | None, Field(min_length=1)] = None
    batch: Annotated[int, Field(ge=1, le=2**16)] = BATCH
    crop: Annotated[int, Field(ge=PIXELS_A_TOKEN, le=4096)] = CROP
    scale: Annotated[float, Field(gt=1, le=64)] = SCALE
    rate: Annotated[float, Field(gt=0, le=1)] = RATE
    pictures: Annotated[int, Field(ge=1, le=10**6)] = PICTURES
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0
    stages: Annotated[tuple[StageName, ...], Field(min_length=1)] = ("flow",)

    @field_validator("stages", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Names in a list, or parted by commas."""
        return tuple(given.split(",")) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.stages not in STAGES:
            known = ", or ".join(",".join(each) for each in STAGES)
            raise ValueError(f"stages {','.join(self.stages)} in that order; {known} works")
        if self.stages[0] != "flow" and self.start is None:
            raise ValueError(
                f"stages {','.join(self.stages)} of a new network, which draws nothing yet; use "
                f"start, a decoder that a flow has trained, or stages flow,{','.join(self.stages)}"
            )
        if self.crop % PIXELS_A_TOKEN:
            near = max(1, round(self.crop / PIXELS_A_TOKEN)) * PIXELS_A_TOKEN
            raise ValueError(
                f"crop {self.crop} is no multiple of {PIXELS_A_TOKEN}; the nearest is {near}"
            )
        return self

    @property
    def spec(self) -> RenderSpec:
        """The model as a render names it."""
        return parse(self.model_dump(include={"model", "revision", "variant", "seed"}))


def of(values: dict[str, Any]) -> Recipe:
    """A decoder's recipe of plain values; raises as `parsed`."""
    return parsed(Recipe, values)


def parsed(kind: type[AnyRecipe], values: dict[str, Any]) -> AnyRecipe:
    """A recipe of plain values; `SpecError` names what is wrong and what would work."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, first["loc"]))
    raise SpecError(f"{field} = {shown(first['input'])}: {reason}" if field else reason)
