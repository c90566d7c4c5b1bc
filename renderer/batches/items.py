"""Items of a batch: a file or a list of mappings becomes named specs under one output folder.

What a file says can neither leave the output folder nor meet another item's outputs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
)

from ..errors import SpecError, shown
from ..files.location import MOST_NAME, Location, location, output, real
from ..spec.field_errors import nearest
from ..spec.place import height_width
from ..spec.render_spec import RenderSpec, parse
from . import batch_file
from .batch_file import SHARED, Values, flat, slug

MOST_ITEM = MOST_NAME - len(".zarr") - 10  # bytes of an item's name; a number may be added
RESERVED = frozenset({"frieze", "report.json", "contact.png"})  # the batch's own, in its folder


class ItemKeys(BaseModel):
    """What an item says besides the fields of its spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    size: str | None = None
    priority: StrictInt = 0
    also: tuple[str, ...] = ()

    @field_validator("also", mode="before")
    @classmethod
    def _one_file(cls, also: Any) -> Any:
        return (also,) if isinstance(also, str) else also

    @field_validator("name")
    @classmethod
    def _is_plain(cls, name: str | None) -> str | None:
        """A name that a file can have, inside the output folder, on any system."""
        if name is None:
            return None
        if not re.fullmatch(r"[^\W_][\w .,+=-]{0,119}", name):
            raise ValueError(
                f"name {shown(name)} does not work: letters, digits, spaces and . , + = - _, "
                "at most 120, the first a letter or digit"
            )
        if (size := len(name.encode())) > MOST_ITEM:
            raise ValueError(f"name {name!r} has {size} bytes; at most {MOST_ITEM} work")
        return name


# What works where one of these is of another type.
WORKS = {
    "name": "is no text; letters, digits, spaces and . , + = - _ work",
    "size": "is not WIDTHxHEIGHT in pixels, for example 1024x768",
    "priority": "is no whole number; larger ones come first",
    "also": "is no list of files, such as [{name}.png]",
}
OWN = (*ItemKeys.model_fields, "preset")
KNOWN = (*(f for f in RenderSpec.model_fields if f not in SHARED and f != "max_workers"), *OWN)


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
        about = [self.spec.identity(), *map(str, self.outputs)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def read(source: str | Path | Iterable[Values], root: Location, shared: Values) -> tuple[Item, ...]:
    """The items of a file or of mappings; `root` is a real path, or a prefix of a bucket.

    `shared` is what the batch decides.

    Raises `SpecError` that names the item, the key and what would work.
    """
    if isinstance(source, str | Path):
        title, listed = f"{source}: ", list(batch_file.read(Path(source)))
    else:
        title, listed = "", list(source)
    if not listed:
        raise SpecError(f"{title or 'the batch: '}no items; give at least one, with a prompt")
    if len(listed) > batch_file.MOST:
        raise SpecError(f"{title}{len(listed)} items; a batch holds {batch_file.MOST} at the most")
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
    return root in real(path).parents


def _item(values: Any, root: Location, shared: Values, taken: set[str]) -> Item:
    if not isinstance(values, dict):
        raise SpecError(f"{shown(values)} is no mapping of keys; give at least a prompt")
    fields = flat(values)
    _check_keys(fields)
    own = _own({key: fields.pop(key) for key in ItemKeys.model_fields if key in fields})
    if "prompt" not in fields and fields.get("upscale") is None:
        raise SpecError("no prompt; give one")
    if own.size is not None:
        if both := [key for key in ("height", "width") if key in fields]:
            raise SpecError(f"size and {both[0]} both given; use one")
        fields |= height_width(own.size)
    name = _name(own, fields, taken)
    out = _path(root, str(fields.get("out", "{name}.zarr")), name, "out")
    also = tuple(_path(root, text, name, "also") for text in own.also)
    spec = parse({**fields, **shared, "out": str(out)})
    if spec.print is not None:
        from ..driver.print_size import of_print

        spec = of_print(spec)
    if spec.max_workers is not None:
        raise SpecError(f"workers = {shown(fields['workers'])}: an item takes one number of them")
    workers = spec.workers if "workers" in fields else None
    return Item(name, spec, also, own.priority, workers)


def _check_keys(values: Values) -> None:
    for key in values:
        if key in SHARED:
            raise SpecError(f"{key!r} is for the whole batch: frieze batch --{key}")
        if key not in KNOWN:
            raise SpecError(f"unknown field {shown(key)}; the nearest is {nearest(key, KNOWN)!r}")


def _own(values: Values) -> ItemKeys:
    try:
        return ItemKeys.model_validate(values)
    except ValidationError as error:
        faults = dict.fromkeys(_explain(dict(item), values) for item in error.errors())
        raise SpecError("; ".join(faults)) from None


def _explain(item: dict[str, Any], values: Values) -> str:
    key = str(item["loc"][0])
    if item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    return f"{key} = {shown(values[key])} {WORKS[key]}"


def _name(own: ItemKeys, fields: Values, taken: set[str]) -> str:
    """The item's own name, else the first words of its prompt, or those of what is made larger.

    A number tells equals apart.
    """
    words = str(fields.get("prompt", "")) or Path(str(fields.get("upscale") or "")).stem
    name = (slug(words) or "item") if own.name is None else own.name
    numbers = itertools.count(2)
    free = name
    while own.name is None and free in taken:
        free = f"{name}-{next(numbers)}"
    if free in taken:
        raise SpecError(f"name {name!r} is another item's; give each its own")
    return free


def _path(root: Location, text: str, name: str, key: str) -> Location:
    """A path inside the output folder; `{name}` in it is the item's name."""
    path = PurePosixPath(text.replace("{name}", name))
    goes_down = path.parts and not path.is_absolute() and ".." not in path.parts
    is_plain = text.isprintable() and not re.search(r"^~|\\|://", text)
    if not (goes_down and is_plain):
        raise SpecError(
            f"{key} {shown(text)} leaves the output folder; give a path inside it, "
            "as suns/{name}.tif"
        )
    for target in (output(root / path, SpecError), (root / path).with_suffix(".zarr")):
        if not inside(root, target):
            raise SpecError(f"{key} {text!r} leads out of {root} by a link; use another name")
        where: Any = real(target)
        if where.relative_to(root).parts[0] in RESERVED:
            raise SpecError(f"{key} {text!r} is the batch's own file; use another name")
    return root / path


def _refuse_duplicates(items: Iterable[Item], root: Any, title: str) -> None:
    """No file of an item may be, or lie in, another or another item's, links followed."""
    owners: dict[Any, str] = {}
    for item in items:
        named = (*dict.fromkeys((item.main.with_suffix(".zarr"), item.main)), *item.also)
        places = set(map(real, named))
        if len(places) < len(named):
            raise SpecError(f"{title}{item.name!r} writes one of its files twice; name each once")
        for path in places:
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
