"""A preset, a prompt, a size and fields as one RenderSpec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SpecError, shown
from .place import height_width, overridden
from .presets import preset
from .render_spec import RenderSpec, parse
from .values import ValuesError, from_json

# Fields that are told as NAME=VALUE words, by which flag, and what such a word looks like.
OPTIONS = (
    ("method_options", "--option", "margin=0.85"),
    ("strategy_options", "--strategy-option", "overlap=64"),
    ("scheduler_options", "--scheduler-option", "timestep_spacing=trailing"),
    ("watermark_options", "--watermark-option", "levels=2"),
)


def merge(
    name: str | None, prompt: str | None, size: str | None, fields: Mapping[str, Any]
) -> RenderSpec:
    """The spec that a preset, a prompt, WIDTHxHEIGHT and single fields add up to.

    The command line wins over the preset. Raises `SpecError`.
    """
    values = _checked_preset(name) if name else {}
    # Of a flag that may be repeated and is not there, a parser of words alone has none of it.
    given = {field: value for field, value in fields.items() if value not in (None, ())}
    for field, flag, example in OPTIONS:
        if field in given:
            given[field] = typed_values(flag, given[field], example)
    if size is not None:
        given |= _height_width(size, given)
    if prompt is not None:
        given["prompt"] = prompt
    below = {k: v for k, v in values.items() if k not in overridden(values, given)}
    return parse(below | given)


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


def name_values(
    flag: str, words: Iterable[str], example: str, names: str = "[^=]+"
) -> dict[str, str]:
    """NAME=VALUE words as a mapping; raises `SpecError` that says which is none, or named twice.

    `names` is what a name looks like. A value is never told: it may be a secret.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(names, name):
            raise SpecError(f"{flag} {shown(name)} is not NAME=VALUE, for example {example}")
        if name in found:
            raise SpecError(f"{flag} {shown(name)} is given twice; use one")
        found[name] = value
    return found


def typed_values(flag: str, words: Iterable[str], example: str) -> dict[str, Any]:
    """NAME=VALUE words as `name_values` reads them, numbers and true or false as what they are."""
    return {name: _value(text) for name, text in name_values(flag, words, example).items()}


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
