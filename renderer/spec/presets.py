"""Presets by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SpecError, shown
from ..input_files import fault
from .values import ValuesError, file_text, from_yaml

# Beside this package in the repository, and beside it in an installed wheel.
PRESETS = Path(__file__).parents[2] / "configs" / "presets"


def preset_names() -> tuple[str, ...]:
    """The presets that ship with Frieze."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def preset(name: str) -> dict[str, Any]:
    """The fields of `configs/presets/NAME.yaml`, or of a YAML file given by its path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if (why := fault(path)) is not None:
        known = ", ".join(preset_names())
        raise SpecError(
            f"no preset {shown(name)}; there are: {known}, or a path to a .yaml ({why})"
        )
    try:
        text = file_text(path)
    except ValuesError as error:
        raise SpecError(f"preset {name!r} cannot be read: {error}") from None
    try:
        fields = from_yaml(text)
    except ValuesError as error:
        raise SpecError(f"preset {name!r} is not YAML that works: {error}") from None
    if not isinstance(fields, dict):
        raise SpecError(f"preset {name!r} holds {type(fields).__name__}; a mapping of fields works")
    return fields
