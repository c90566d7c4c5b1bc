"""Plain values that a person writes: YAML and JSON texts as mappings, lists, texts and numbers.

What is read holds no more than JSON can: dates stay the text that they were written as, and
aliases that would unfold without end, keys given twice and numbers that nothing here could mean
are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer

from ..errors import printable, reason, shown
from ..input_files import fault
from .lora_refs import LoraRef

MOST_BYTES = 2**26  # of a file
MOST_VALUES = 1_000_000  # of a text, aliases unfolded
MOST_DEPTH = 50
MOST_NUMBER = 2**64  # of a whole number's magnitude
MERGE = "tag:yaml.org,2002:merge"


class ValuesError(ValueError):
    """A text or value is none that can be read; the message says why, and nothing of where."""


def file_text(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark left out; raises `ValuesError`."""
    try:
        if (why := fault(path)) is not None:
            raise ValuesError(why)
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValuesError(f"it has {size} bytes; at most {MOST_BYTES} work")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValuesError(f"byte {error.start} is no UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ValuesError(error.strerror or type(error).__name__) from None


def from_yaml(text: str) -> Any:
    """The values of a YAML text; raises `ValuesError`."""
    try:
        values = yaml.load(text, _Loader)  # a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise ValuesError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValuesError(reason(error)) from None
    except RecursionError:
        raise ValuesError("brackets in brackets too deep") from None
    except ValuesError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Of numbers that Python does not take, and of tags that do not fit their value.
        raise ValuesError(f"a value that does not fit its tag ({error})") from None
    return checked(values)


def to_yaml(values: Mapping[str, Any], *, in_ascii: bool = False) -> str:
    """Plain values as a YAML text of which `from_yaml` makes the same, keys in their order.

    Letters are escaped where one of them is not printed, or not ASCII with `in_ascii`.
    """

    def written(is_plain: bool) -> str:
        return yaml.dump(
            dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=is_plain, width=100
        )

    text = written(is_plain=not in_ascii)
    # Not all that PyYAML leaves as it is would be read as it was: breaks of lines of Unicode.
    return text if printable(text, kept="\n") == text else written(is_plain=False)


def from_json(text: str) -> Any:
    """The values of a JSON text; raises `ValuesError`."""
    try:
        values = json.loads(text, object_pairs_hook=_mapping)
    except RecursionError:
        raise ValuesError("brackets in brackets too deep") from None
    except ValuesError:
        raise
    except ValueError as error:  # of a number with too many digits too
        raise ValuesError(str(error)) from None
    return checked(values)


def checked(value: Any, *, any_number: bool = False) -> Any:
    """The value itself; raises `ValuesError` for one that JSON, or a plan, could not hold.

    `any_number`: numbers are for somebody else to judge.
    """
    _Count(any_number).add(value, 0)
    return value


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return dict(checked(options, any_number=True))


# NAME=VALUE of a plugin, numbers for it to judge.
PlainOptions = Annotated[dict[str, Any], AfterValidator(_plain)]


MOST_SEVERAL = 16
NO_KIND = "none"  # told in the place of a number, where there is none
T = TypeVar("T")


def _several(value: Any) -> Any:
    """One value as a tuple of one, none as none."""
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(each, bool) for each in values):
        raise ValueError("a switch where none is; give a value")
    return values


def _as_told(values: tuple[Any, ...]) -> Any:
    """A tuple of one as its value: what had one value has always been written so."""
    return list(values) if len(values) > 1 else next(iter(values), None)


# Of each of several things a value, or one of all of them; told and written as one value then.
Several = Annotated[
    tuple[T, ...],
    Field(max_length=MOST_SEVERAL),
    BeforeValidator(_several),
    PlainSerializer(_as_told),
]
Name = Annotated[str, Field(min_length=1)]
Strength = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Kind = Annotated[
    int | None,
    Field(ge=0, le=99),
    BeforeValidator(lambda value: None if value == NO_KIND else value),
]


def is_text(text: str) -> bool:
    """Whether UTF-8 and a file's name can hold it: no halves of letters, no zero byte."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def texts(value: Any) -> Iterator[str]:
    """The texts of a field, those of records and lists in it too."""
    if isinstance(value, str | LoraRef):
        yield str(value)
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from texts(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from texts(inner)


class _Count:
    """Values seen so far; an alias counts as often as it is named."""

    def __init__(self, any_number: bool) -> None:
        self.number, self.any_number = 0, any_number

    def add(self, value: Any, depth: int) -> None:
        self.number += 1
        if self.number > MOST_VALUES:
            raise ValuesError(f"it unfolds to more than {MOST_VALUES} values")
        if depth > MOST_DEPTH:
            raise ValuesError(f"brackets in brackets, more than {MOST_DEPTH} deep")
        match value:
            case None | bool():
                return
            case int() | float() if self.any_number:
                return
            case str():
                if not is_text(value):
                    raise ValuesError(f"{shown(value)} is no text in UTF-8")
            case int():
                if abs(value) > MOST_NUMBER:
                    raise ValuesError(f"{shown(value)} is larger than any number of a picture")
            case float():
                if not math.isfinite(value):
                    raise ValuesError(f"{value} is no number")
            case Mapping():
                for key, item in value.items():
                    if not isinstance(key, str):
                        raise ValuesError(f"the key {shown(key)} is no text; write it in quotes")
                    self.add(key, depth)
                    self.add(item, depth + 1)
            case list() | tuple():
                for item in value:
                    self.add(item, depth + 1)
            case _:
                raise ValuesError(f"{shown(value)} is a {type(value).__name__}, not plain text")


def _mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValuesError(f"the key {shown(key)} is given twice")
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML's safe loader of plain values; no key twice, no merge beyond `MOST_VALUES`.

    The scanner takes time with the square of the depth, so that it is bounded here.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > MOST_DEPTH:
            raise ValuesError(f"brackets in brackets, more than {MOST_DEPTH} deep")
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        if len(self.indents) > MOST_DEPTH:
            raise ValuesError(f"lists in lists, more than {MOST_DEPTH} deep")
        return super().add_indent(column)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            known = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if known in seen and key.tag != MERGE:
                number = key.start_mark.line + 1
                raise ValuesError(f"line {number}: the key {shown(key.value)} is given twice")
            seen.add(known)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == MERGE]
        parts = [
            part
            for value in merged
            for part in (value.value if isinstance(value, yaml.SequenceNode) else [value])
            if isinstance(part, yaml.MappingNode)
        ]
        for part in parts:
            self.flatten_mapping(part)
        if sum(len(part.value) for part in parts) > MOST_VALUES:
            raise ValuesError(f"merged keys make more than {MOST_VALUES} values")
        super().flatten_mapping(node)


class _Dumper(yaml.SafeDumper):
    """YAML's safe writer without aliases: a list that is given twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Dates are what they look like: names and words.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
