"""Options of a method: a frozen record with types, ranges and defaults.

A method that has any defines `class Options(MethodOptions)`, one field for each, and reads them by
`Options.read(spec)`. What an option may be is told by its JSON schema, in errors and in lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from ..errors import SpecError, shown
from ..spec.render_spec import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ..spec.render_spec import RenderSpec

MOST_NUMBER, MOST_ITEMS = 10**6, 1000  # of any number, and of any list of them
SHORT = {
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "string": "text",
}


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
        for name in values:
            if name not in cls.model_fields:
                raise SpecError(_unknown(method, name, tuple(cls.model_fields)))
        if not (given := {n: value for n, value in values.items() if value is not None}):
            return cls()
        schemas = cls.model_json_schema()["properties"]
        read = {name: _as_typed(value, schemas[name]) for name, value in given.items()}
        for name, value in read.items():
            if schemas[name].get("type") != "boolean" and _holds_switch(value):
                raise SpecError(_refusal(method, name, value, schemas[name]))
        try:
            return cls.model_validate(read)
        except ValidationError as error:
            lines = [_explain(method, item, schemas) for item in error.errors()]
        raise SpecError("; ".join(dict.fromkeys(lines)))


def meaning(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words, of a JSON schema: "a number more than 0, up to 1"."""
    if "anyOf" in schema:
        return " or ".join(meaning(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = schema.get("type")
    if kind == "array":
        item = schema.get("items", {})
        example = "8,9" if item.get("type") == "integer" else "0.5,2"
        return f"a list of {SHORT.get(item.get('type'), 'value')}s{_range(item)}, as {example}"
    words = SHORT.get(str(kind), "value")
    return words if kind in ("boolean", "string") else f"a {words}{_range(schema)}"


def default_text(schema: Mapping[str, Any]) -> str:
    """An option's default as it would be typed."""
    default = schema.get("default")
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ",".join(f"{item:g}" for item in default) or "none"
    return f"{default:g}" if isinstance(default, int | float) else str(default) or "none"


def _range(schema: Mapping[str, Any]) -> str:
    least, above, most = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if (below := schema.get("exclusiveMaximum")) is not None:
        return (
            f"{_range({'minimum': least, 'exclusiveMinimum': above})}, less than {_number(below)}"
        )
    if above is not None:
        lower = f" more than {_number(above)}"
        return lower if most is None else f"{lower}, up to {_number(most)}"
    lower = "" if least is None else f" from {_number(least)}"
    return lower if most is None else f"{lower} to {_number(most)}"


def _number(value: float) -> str:
    return f"{value:g}".replace("e+0", "e")


def _as_typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value; where a list is meant, the items of a text with commas, or of one item alone."""
    if schema.get("type") != "array" or isinstance(value, list | tuple):
        return value
    return value.split(",") if isinstance(value, str) else [value]


def _holds_switch(value: Any) -> bool:
    """Whether a value, or an item of it, is true or false: numbers too, as Python reads them."""
    return any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value]))


def _explain(method: str, item: ErrorDetails, schemas: Mapping[str, Any]) -> str:
    if not item["loc"]:  # of several options together
        return item["msg"].removeprefix("Value error, ")
    name, value = str(item["loc"][0]), item["input"]
    if item["type"] == "too_long":
        return f"option {name} of {method} has {len(value)} items; at most {MOST_ITEMS} work"
    return _refusal(method, name, value, schemas[name])


def _refusal(method: str, name: str, value: Any, schema: Mapping[str, Any]) -> str:
    near = f" (the nearest is {nearest(value, schema['enum'])!r})" if "enum" in schema else ""
    return f"option {name} of {method} = {shown(value)}; it must be {meaning(schema)}{near}"


def _unknown(method: str, name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"method {method} takes no options, but {shown(name)} is given"
    return f"method {method} has no option {shown(name)}; the nearest is {nearest(name, known)!r}"
