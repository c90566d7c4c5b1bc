"""A batch's file: YAML with `defaults`, `matrix` and `items`, a list of items, or JSON lines.

Each item becomes a mapping of keys, from presets up: what they mean is for items.py to say.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SpecError, shown
from ..input_files import fault
from ..spec.field_errors import nearest
from ..spec.place import overridden
from ..spec.presets import preset
from ..spec.values import ValuesError, file_text, from_json, from_yaml

# Of the whole batch, because its workers are; given on the command line.
SHARED = frozenset({"local", "park", "address"})
# What a preset says of the place of one picture means nothing in a batch.
NOT_FROM_PRESETS = SHARED | {"out", "overwrite", "workers", "max_workers"}
MOST = 10_000
NAME_LETTERS, NAME_MOST, NAME_BYTES = 40, 100, 200

Values = Mapping[str, Any]


class BatchFile(BaseModel):
    """A batch's file: what lies under all items, lists of which every combination is one, items."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    defaults: dict[str, Any] = Field(default_factory=dict)
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    items: list[Any] = Field(default_factory=list)  # each is judged, and named, by items.py


def read(path: Path) -> Iterator[Values]:
    """The values of each item; raises `SpecError` of one line."""
    if path.suffix == ".jsonl":
        yield from _from_lines(path, _text(path))
    elif path.suffix in (".yaml", ".yml", ".json"):
        yield from _expanded(_batch(path))
    else:
        raise SpecError(f"{path} is no batch: a file ends in .yaml, .json or .jsonl")


def preset_files(path: Path) -> list[str]:
    """The files of presets that a batch names, in its sections or in its lines."""
    if path.suffix == ".jsonl":
        batch = BatchFile(items=list(_from_lines(path, _text(path))))
    else:
        batch = _batch(path)
    layers = [batch.defaults, *batch.items]
    named = [layer.get("preset") for layer in layers if isinstance(layer, dict)]
    named += batch.matrix.get("preset", [])
    files = (str(name) for name in named if str(name).endswith((".yaml", ".yml")))
    return list(dict.fromkeys(files))


def _text(path: Path) -> str:
    if (why := fault(path)) is not None:
        raise SpecError(f"a batch cannot be read: {why}; give a .yaml, .json or .jsonl file")
    try:
        return file_text(path)
    except ValuesError as error:
        raise SpecError(f"{path} cannot be read: {error}; give a .yaml or .jsonl file") from None


def _batch(path: Path) -> BatchFile:
    """What a YAML file says; one that is a list holds items alone."""
    text = _text(path)
    try:
        values = from_yaml(text)
    except ValuesError as error:
        raise SpecError(f"{path} is not YAML that works: {error}") from None
    if isinstance(values, list):
        values = {"items": values}
    if not isinstance(values, dict):
        raise SpecError(f"{path} holds {type(values).__name__}; a list of items works")
    try:
        return BatchFile.model_validate({key: v for key, v in values.items() if v is not None})
    except ValidationError as error:
        faults = dict.fromkeys(_explain(dict(item)) for item in error.errors())
        raise SpecError(f"{path}: {'; '.join(faults)}") from None


def _explain(item: dict[str, Any]) -> str:
    section, *keys = item["loc"]
    if item["type"] == "extra_forbidden":
        near = nearest(section, BatchFile.model_fields)
        return f"unknown section {shown(section)}; the nearest is {near!r}"
    if keys:  # of the matrix
        return f"{section} {keys[0]} = {shown(item['input'])} is no list; give its values in [ ]"
    works = "a list" if section == "items" else "a mapping of keys"
    return f"{section} is {type(item['input']).__name__}; {works} works"


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


def _expanded(batch: BatchFile) -> Iterator[Values]:
    """All items of a file: those of its matrix, then those written out."""
    for values in (*_product(batch.matrix), *batch.items):
        yield _over(flat(batch.defaults), flat(values)) if isinstance(values, dict) else values


def _product(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the lists, the last key fastest, named by what tells them apart."""
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
    """Two layers of values; a size replaces a height and a width or a print, and they a size."""
    hidden = overridden(below, above)
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
