"""Items of a batch: a file or a list of mappings becomes named specs under one output folder.

A file is YAML with `defaults`, `matrix` and `items`, or a list of items; or JSON lines, an item on
each. What a file says can neither leave the output folder nor meet another item's outputs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from .errors import SpecError
from .locations import Location, S3Path, location
from .spec import RenderSpec, height_width, nearest, parse, preset

# An item's keys besides the spec's fields.
OWN = ("name", "preset", "size", "priority", "also")
# Of the whole batch, because its workers are; given on the command line.
SHARED = frozenset({"local", "park", "address"})
# What a preset says of the place of one picture means nothing in a batch.
NOT_FROM_PRESETS = SHARED | {"out", "overwrite", "workers", "max_workers"}
KNOWN = (*(f for f in RenderSpec.model_fields if f not in SHARED and f != "max_workers"), *OWN)
SECTIONS = ("defaults", "matrix", "items")
RESERVED = frozenset({"frieze", "report.json", "contact.png"})  # the batch's own, in its folder
MOST = 10_000
NAME_LETTERS, NAME_MOST = 40, 100

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One picture of a batch; `spec.out` and `also` are absolute, inside the output folder.

    `workers` is the number of ranks that the item asks for; None leaves it to the batch.
    """

    name: str
    spec: RenderSpec
    also: tuple[Location, ...]
    priority: int
    workers: int | None

    @property
    def main(self) -> Location:
        """The picture."""
        return location(self.spec.out, SpecError)

    @property
    def outputs(self) -> tuple[Location, ...]:
        """Everything that the item writes: its store, its picture, its further files."""
        return tuple(dict.fromkeys((self.main.with_suffix(".zarr"), self.main, *self.also)))

    @property
    def digest(self) -> str:
        """Tells whether an item of that name is still the same picture in the same files."""
        about = [self.spec.picture(), *map(str, self.outputs)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def read(source: str | Path | Iterable[Values], root: Location, shared: Values) -> tuple[Item, ...]:
    """The items of a file or of mappings; `root` is a real path, or a prefix of a bucket.

    `shared` is what the batch decides.

    Raises `SpecError` that names the item, the key and what would work.
    """
    if isinstance(source, str | Path):
        title, listed = f"{source}: ", list(_from_file(Path(source)))
    else:
        title, listed = "", list(source)
    if not listed:
        raise SpecError(f"{title or 'the batch: '}no items; give at least one, with a prompt")
    if len(listed) > MOST:
        raise SpecError(f"{title}{len(listed)} items; a batch holds {MOST} at the most")
    items, taken = [], set[str]()
    for number, values in enumerate(listed, 1):
        try:
            item = _item(values, root, shared, taken)
        except SpecError as error:
            raise SpecError(f"{title}item {number}{_called(values)}: {error}") from None
        taken.add(item.name)
        items.append(item)
    _refuse_duplicates(items, root, title)
    return tuple(items)


def inside(root: Location, path: Location) -> bool:
    """Whether a path lies in a folder, links followed; `root` is a real path."""
    return root in (path if isinstance(path, S3Path) else Path(os.path.realpath(path))).parents


def _from_file(path: Path) -> Iterator[Values]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}; give a .yaml or .jsonl file") from None
    if path.suffix == ".jsonl":
        yield from _from_lines(path, text)
    elif path.suffix in (".yaml", ".yml", ".json"):
        try:
            yield from _expanded(yaml.safe_load(text), path)
        except (yaml.YAMLError, RecursionError) as error:
            raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    else:
        raise SpecError(f"{path} is no batch: a file ends in .yaml, .json or .jsonl")


def _from_lines(path: Path, text: str) -> Iterator[Values]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
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
            raise SpecError(f"{path}: unknown section {section!r}; the nearest is {near!r}")
    defaults, matrix = (_mapping(told, name, path) for name in SECTIONS[:2])
    items = told.get("items") or []
    if not isinstance(items, list):
        raise SpecError(f"{path}: items is {type(items).__name__}; a list works")
    for values in (*_product(matrix, path), *items):
        yield _over(_flat(defaults), _flat(values)) if isinstance(values, dict) else values


def _mapping(told: Values, name: str, path: Path) -> dict[str, Any]:
    values = told.get(name) or {}
    if not isinstance(values, dict):
        raise SpecError(f"{path}: {name} is {type(values).__name__}; a mapping of keys works")
    return values


def _product(matrix: Values, path: Path) -> Iterator[dict[str, Any]]:
    """Every combination of the lists, the last key fastest, named by what tells them apart."""
    for key, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise SpecError(f"{path}: matrix {key} = {values!r} is no list; give its values in [ ]")
    if not matrix:
        return
    varied = [key for key, values in matrix.items() if len(values) > 1]
    times: Counter[str] = Counter()
    combinations = itertools.product(*matrix.values())
    for combination in itertools.islice(combinations, MOST + 1):
        values = dict(zip(matrix, combination, strict=True))
        words = "-".join(filter(None, (_word(key, values[key]) for key in varied)))[:NAME_MOST]
        times[words] += 1
        if times[words] > 1:
            words += f"-{times[words]}"
        yield ({"name": words} if words and varied else {}) | values


def _flat(values: Values) -> dict[str, Any]:
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


def _item(values: Any, root: Location, shared: Values, taken: set[str]) -> Item:
    if not isinstance(values, dict):
        raise SpecError(f"{values!r} is no mapping of keys; give at least a prompt")
    fields = _flat(values)
    _check_keys(fields)
    own = {key: fields.pop(key) for key in OWN if key in fields}
    if "prompt" not in fields:
        raise SpecError("no prompt; give one")
    if "size" in own:
        if both := [key for key in ("height", "width") if key in fields]:
            raise SpecError(f"size and {both[0]} both given; use one")
        fields |= height_width(str(own["size"]))
    name = _name(own, fields, taken)
    out = _path(root, str(fields.get("out", "{name}.zarr")), name, "out")
    also = tuple(_path(root, text, name, "also") for text in _texts(own.get("also", [])))
    spec = parse({**fields, **shared, "out": str(out)})
    if spec.max_workers is not None:
        raise SpecError(f"workers = {fields['workers']!r}: an item takes one number of them")
    priority = own.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise SpecError(f"priority = {priority!r} is no whole number; larger ones come first")
    workers = spec.workers if "workers" in fields else None
    return Item(name, spec, also, priority, workers)


def _check_keys(values: Values) -> None:
    for key in values:
        if key in SHARED:
            raise SpecError(f"{key!r} is for the whole batch: frieze batch --{key}")
        if key not in KNOWN:
            raise SpecError(f"unknown field {key!r}; the nearest is {nearest(key, KNOWN)!r}")


def _name(own: Values, fields: Values, taken: set[str]) -> str:
    """The item's own name, else the first words of its prompt; a number tells equals apart."""
    told = own.get("name")
    name = _slug(str(fields.get("prompt", ""))) or "item" if told is None else str(told)
    if not re.fullmatch(r"[^\W_][\w .,+=-]{0,119}", name):
        raise SpecError(
            f"name {name!r} does not work: letters, digits, spaces and . , + = - _, "
            "at most 120, the first a letter or digit"
        )
    numbers = itertools.count(2)
    free = name
    while told is None and free in taken:
        free = f"{name}-{next(numbers)}"
    if free in taken:
        raise SpecError(f"name {name!r} is another item's; give each its own")
    return free


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise SpecError(f"also = {value!r} is no list of files, such as [{{name}}.png]")
    return value


def _path(root: Location, text: str, name: str, key: str) -> Location:
    """A path inside the output folder; `{name}` in it is the item's name."""
    path = PurePosixPath(text.replace("{name}", name))
    goes_down = path.parts and not path.is_absolute() and ".." not in path.parts
    is_plain = text.isprintable() and not re.search(r"^~|\\|://", text)
    if not (goes_down and is_plain):
        raise SpecError(
            f"{key} {text!r} leaves the output folder; give a path inside it, as suns/{{name}}.tif"
        )
    if path.parts[0] in RESERVED:
        raise SpecError(f"{key} {text!r} is the batch's own file; use another name")
    for target in (root / path, (root / path).with_suffix(".zarr")):
        if not inside(root, target):
            raise SpecError(f"{key} {text!r} leads out of {root} by a link; use another name")
    return root / path


def _refuse_duplicates(items: Iterable[Item], root: Any, title: str) -> None:
    """No file of one item may be, or lie in, a file of another or the same one's."""
    owners: dict[Any, str] = {}
    for item in items:
        if len({*item.also, item.main}) < 1 + len(item.also):
            raise SpecError(f"{title}{item.name!r} writes one of its files twice; name each once")
        for path in item.outputs:
            if path in owners:
                raise SpecError(
                    f"{title}{owners[path]!r} and {item.name!r} both write "
                    f"{path.relative_to(root)}; give each its own out"
                )
            owners[path] = item.name
    for path, name in owners.items():
        for parent in path.parents:
            if parent in owners:
                raise SpecError(
                    f"{title}{path.relative_to(root)} of {name!r} would lie in "
                    f"{parent.relative_to(root)}, which {owners[parent]!r} writes; use another out"
                )


def _called(values: Any) -> str:
    name = values.get("name") if isinstance(values, dict) else None
    return f" ({name})" if isinstance(name, str) else ""


def _word(key: str, value: object) -> str:
    """What tells a combination of a matrix apart by one of its keys."""
    if key in ("prompt", "size"):
        return _slug(str(value))
    text = Path(str(value)).name if key == "model" else str(value)
    return _slug(f"{'' if key in ('model', 'preset') else key}-{text}")


def _slug(text: str) -> str:
    words = re.sub(r"[^\w]+", "-", text.lower()).replace("_", "-").strip("-")
    return words[:NAME_LETTERS].rstrip("-")
