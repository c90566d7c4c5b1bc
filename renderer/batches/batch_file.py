"""A batch's file: YAML with `defaults`, `matrix` and `items`, a list of items, or JSON lines.

Each item becomes a mapping of keys, from presets up: what they mean is for items.py to say.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import SpecError, shown
from ..input_files import fault
from ..spec.presets import preset
from ..spec.render_spec import nearest
from ..spec.values import ValuesError, file_text, from_json, from_yaml

# Of the whole batch, because its workers are; given on the command line.
SHARED = frozenset({"local", "park", "address"})
# What a preset says of the place of one picture means nothing in a batch.
NOT_FROM_PRESETS = SHARED | {"out", "overwrite", "workers", "max_workers"}
SECTIONS = ("defaults", "matrix", "items")
MOST = 10_000
NAME_LETTERS, NAME_MOST, NAME_BYTES = 40, 100, 200

Values = Mapping[str, Any]


def read(path: Path) -> Iterator[Values]:
    """The values of each item; raises `SpecError` of one line."""
    if path.suffix == ".jsonl":
        yield from _from_lines(path, _text(path))
    elif path.suffix in (".yaml", ".yml", ".json"):
        yield from _expanded(_told(path), path)
    else:
        raise SpecError(f"{path} is no batch: a file ends in .yaml, .json or .jsonl")


def preset_files(path: Path) -> list[str]:
    """The files of presets that a batch names, in its sections or in its lines."""
    told: Any = list(_from_lines(path, _text(path))) if path.suffix == ".jsonl" else _told(path)
    sections = told if isinstance(told, dict) else {"items": told}
    layers = [sections.get("defaults"), *(sections.get("items") or [])]
    named = [layer.get("preset") for layer in layers if isinstance(layer, dict)]
    named += (sections.get("matrix") or {}).get("preset", [])
    files = (str(name) for name in named if str(name).endswith((".yaml", ".yml")))
    return list(dict.fromkeys(files))


def _text(path: Path) -> str:
    if (why := fault(path)) is not None:
        raise SpecError(f"a batch cannot be read: {why}; give a .yaml, .json or .jsonl file")
    try:
        return file_text(path)
    except ValuesError as error:
        raise SpecError(f"{path} cannot be read: {error}; give a .yaml or .jsonl file") from None


def _told(path: Path) -> Any:
    """What a YAML file says."""
    text = _text(path)
    try:
        return from_yaml(text)
    except ValuesError as error:
        raise SpecError(f"{path} is not YAML that works: {error}") from None


def _from_lines(path: Path, text: str) -> Iterator[Values]:
    # At newlines alone: other breaks of lines may stand inside a text of JSON.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = from_json(line)
        except ValuesError as error:
            raise SpecError(
                f"{path}: line {number} is no JSON object ({error}); each line is one item"
            ) from None
        if not isinstance(values, dict):
            raise SpecError(f"{path}: line {number} is no JSON object; each line is one item")
        yield values


def _expanded(told: Any, path: Path) -> Iterator[Values]:
    """All items of a YAML file: those of its matrix, then those written out."""
    if isinstance(told, list):
        told = {"items": told}
    if not isinstance(told, dict):
        raise SpecError(f"{path} holds {type(told).__name__}; a list of items works")
    for section in told:
        if section not in SECTIONS:
            near = nearest(section, SECTIONS)
            raise SpecError(f"{path}: unknown section {shown(section)}; the nearest is {near!r}")
    defaults, matrix = (_mapping(told, name, path) for name in SECTIONS[:2])
    items = told.get("items") or []
    if not isinstance(items, list):
        raise SpecError(f"{path}: items is {type(items).__name__}; a list works")
    for values in (*_product(matrix, path), *items):
        yield _over(flat(defaults), flat(values)) if isinstance(values, dict) else values


def _mapping(told: Values, name: str, path: Path) -> dict[str, Any]:
    values = told.get(name) or {}
    if not isinstance(values, dict):
        raise SpecError(f"{path}: {name} is {type(values).__name__}; a mapping of keys works")
    return values


def _product(matrix: Values, path: Path) -> Iterator[dict[str, Any]]:
    """Every combination of the lists, the last key fastest, named by what tells them apart."""
    for key, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise SpecError(
                f"{path}: matrix {key} = {shown(values)} is no list; give its values in [ ]"
            )
    if not matrix:
        return
    varied = [key for key, values in matrix.items() if len(values) > 1]
    times: Counter[str] = Counter()
    combinations = itertools.product(*matrix.values())
    for combination in itertools.islice(combinations, MOST + 1):
        values = dict(zip(matrix, combination, strict=True))
        words = "-".join(filter(None, (_word(key, values[key]) for key in varied)))
        words = words[:NAME_MOST].encode()[:NAME_BYTES].decode(errors="ignore")
        times[words] += 1
        if times[words] > 1:
            words += f"-{times[words]}"
        yield ({"name": words} if words and varied else {}) | values


def flat(values: Values) -> dict[str, Any]:
    """Values over those of the preset that they name."""
    given = dict(values)
    if "preset" not in given:
        return given
    found = preset(str(given.pop("preset")))
    kept = {key: value for key, value in found.items() if key not in NOT_FROM_PRESETS}
    return _over(kept, given)


def _over(below: Values, above: Values) -> dict[str, Any]:
    """Two layers of values; a size replaces a height and a width, and they a size."""
    hidden = {"height", "width"} if "size" in above else set()
    if {"height", "width"} & above.keys():
        hidden = {"size"}
    return {**{key: value for key, value in below.items() if key not in hidden}, **above}


def _word(key: str, value: object) -> str:
    """What tells a combination of a matrix apart by one of its keys."""
    if key in ("prompt", "size"):
        return slug(str(value))
    text = Path(str(value)).name if key == "model" else str(value)
    return slug(f"{'' if key in ('model', 'preset') else key}-{text}")


def slug(text: str) -> str:
    words = re.sub(r"[^\w]+", "-", text.lower()).replace("_", "-").strip("-")
    return words[:NAME_LETTERS].rstrip("-")
