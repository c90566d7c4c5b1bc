"""Options of a method: a frozen record with types, ranges and defaults.

A method that has any defines `class Options(MethodOptions)`, one field for each, and reads them by
`Options.read(spec)`. What an option may be is told by its JSON schema, in errors and in lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from ..spec.options import MOST_ITEMS, checked_options

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

MOST_NUMBER = 10**6  # of any number

T = TypeVar("T")
Switch = StrictBool
Number = Annotated[float, Field(ge=-MOST_NUMBER, le=MOST_NUMBER)]
Whole = Annotated[int, Field(ge=-MOST_NUMBER, le=MOST_NUMBER)]
Positive = Annotated[float, Field(gt=0, le=MOST_NUMBER)]
NotNegative = Annotated[float, Field(ge=0, le=MOST_NUMBER)]
AtLeastOne = Annotated[float, Field(ge=1, le=MOST_NUMBER)]
Part = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=MOST_NUMBER)]
Index = Annotated[int, Field(ge=0, le=MOST_NUMBER)]
Several = Annotated[tuple[T, ...], Field(max_length=MOST_ITEMS)]
# Of options that what a method is made of takes too.
StepOrder = Literal["published", "aggressive", "progressive"]
Jitter = Literal["separable", "released", "none"]
OddMap = Literal["cut", "resize"]
SizeTold = Literal["first", "canvas"]


class MethodOptions(BaseModel):
    """The options of a method, read and within their ranges; this one has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def read(cls, spec: RenderSpec) -> Self:
        """Every option, as the spec gives it or by default.

        Numbers may be texts, lists texts with commas, and None stands for the default. Raises
        `SpecError` that names the option, its value and what would work.
        """
        return cls._checked(spec.method_options, spec.method)

    def changed(self, **values: Any) -> Self:
        """The same options but for some; raises `SpecError` where these do not work."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return self._checked({**given, **values}, "what was detected")

    @classmethod
    def _checked(cls, values: Mapping[str, Any], method: str) -> Self:
        return checked_options(cls, values, "method", method)
