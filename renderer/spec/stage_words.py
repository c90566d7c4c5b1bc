"""A stage of a cascade as words of a command line: `start=0.5,steps=4,lora=lcm.safetensors`.

The keys are those of a preset's `stages`. A comma parts two keys only where KEY= follows it: values
may hold others. A list's key is given again for each item, and with nothing for none. A line of a
preset, `{start: 0.5, steps: 4}`, works as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import shown
from .values import ValuesError, from_json, from_yaml

EXAMPLE = "scale=1,start=0.5,steps=4"
LISTS, OPTIONS = ("lora", "lora_2"), "scheduler_options"
_PARTED = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9_-]*=)")


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
