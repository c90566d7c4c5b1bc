"""Options of a plugin, as a person gives them: read, within their ranges, or refused in a line.

What an option may be is told by its JSON schema, in errors and in lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import SpecError, shown
from .field_errors import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_ITEMS = 1000  # of a list of numbers
SHORT = {
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "string": "text",
}


Options = TypeVar("Options", bound=BaseModel)


def checked_options(
    kind: type[Options], values: Mapping[str, Any], whose: str, name: str
) -> Options:
    """The options of a plugin: `whose` is a method or a strategy, `name` which; as `read`."""
    for option in values:
        if option not in kind.model_fields:
            raise SpecError(_unknown(f"{whose} {name}", option, tuple(kind.model_fields)))
    if not (given := {n: value for n, value in values.items() if value is not None}):
        return kind()
    schemas = kind.model_json_schema()["properties"]
    read = {option: _as_typed(value, schemas[option]) for option, value in given.items()}
    for option, value in read.items():
        if not _takes_switch(schemas[option]) and _holds_switch(value):
            raise SpecError(_refusal(name, option, value, schemas[option]))
    try:
        return kind.model_validate(read)
    except ValidationError as error:
        lines = [_explain(name, item, schemas) for item in error.errors()]
    raise SpecError("; ".join(dict.fromkeys(lines)))


def _takes_switch(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("type") == "boolean")


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
    """The value; where a list is meant, the items of a text with commas, or of one item alone.

    Where nothing but text is meant, a number is the text that it was typed as: a title may be 2026.
    """
    if _is_text_alone(schema) and isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if schema.get("type") != "array" or isinstance(value, list | tuple):
        return value
    return value.split(",") if isinstance(value, str) else [value]


def _is_text_alone(schema: Mapping[str, Any]) -> bool:
    parts = schema.get("anyOf", (schema,))
    kinds = {part.get("type") for part in parts} - {"null"}
    return kinds == {"string"} and not any("enum" in part for part in parts)


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


def _unknown(whose: str, name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"{whose} takes no options, but {shown(name)} is given"
    return f"{whose} has no option {shown(name)}; the nearest is {nearest(name, known)!r}"
