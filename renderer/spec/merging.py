"""A preset, a prompt, a size and fields as one RenderSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SpecError, shown
from .presets import preset
from .render_spec import RenderSpec, height_width, parse
from .values import ValuesError, from_json


def merge(
    name: str | None, prompt: str | None, size: str | None, fields: Mapping[str, Any]
) -> RenderSpec:
    """The spec that a preset, a prompt, WIDTHxHEIGHT and single fields add up to.

    The command line wins over the preset. Raises `SpecError`.
    """
    values = _checked_preset(name) if name else {}
    given = {field: value for field, value in fields.items() if value is not None}
    if "method_options" in given:
        given["method_options"] = _named(given["method_options"])
    if size is not None:
        given |= _height_width(size, given)
    if prompt is not None:
        given["prompt"] = prompt
    return parse(values | given)


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, as the spec reads them; raises `SpecError`."""
    given = {field: value for field, value in fields.items() if value is not None}
    spec = parse(given)
    found = {field: getattr(spec, field) for field in given}
    if spec.max_workers is not None:
        found["workers"] = f"{spec.workers}..{spec.max_workers}"
    return found


def _checked_preset(name: str) -> dict[str, Any]:
    values = preset(name)
    try:
        parse(values)
    except SpecError as error:
        raise SpecError(f"preset {name!r}: {error}") from None
    return values


def _named(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as a mapping; a value that is JSON is read as such, any other is text."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise SpecError(f"--option {shown(pair)} is not NAME=VALUE, for example margin=0.85")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """What is JSON as such; words, and numbers that no JSON has, as the text they are."""
    try:
        return from_json(text)
    except ValuesError:
        return text


def _height_width(size: str, given: Mapping[str, Any]) -> dict[str, int]:
    found = height_width(size, "--size")
    for field in ("width", "height"):
        if field in given:
            raise SpecError(f"--size {size} and --{field} {given[field]} both given; use one")
    return found
