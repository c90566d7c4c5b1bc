"""What is wrong with a field of a record, in a line: which, its value, and what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import SpecError, shown


def explained(
    error: ValidationError, record: type[BaseModel], inner: Mapping[str, type[BaseModel]]
) -> str:
    """All that is wrong with a record; `inner` are the records in its fields."""
    items: list[dict[str, Any]] = [dict(item) for item in error.errors()]
    inside = {item["loc"][0] for item in items if item["loc"][1:]}
    # A list whose items are refused is called too short as well.
    told = [i for i in items if i["type"] != "too_short" or i["loc"][0] not in inside]
    return "; ".join(_explained(item, record, inner) for item in told)


def nearest(word: object, known: Iterable[str]) -> str:
    """The known word that is most like a mistyped one."""
    return difflib.get_close_matches(str(word)[:100], list(known), n=1, cutoff=0.0)[0]


def _explained(
    item: dict[str, Any], record: type[BaseModel], inner: Mapping[str, type[BaseModel]]
) -> str:
    if isinstance(cause := item.get("ctx", {}).get("error"), SpecError):
        return str(cause)  # of a value that says all itself
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        where = inner.get(str(item["loc"][0]), record) if item["loc"][1:] else record
        known = list(where.model_fields)
        return f"unknown field {shown(field)}; the nearest is {nearest(item['loc'][-1], known)!r}"
    reason = item["msg"].removeprefix("Value error, ")
    return f"{field} = {shown(item['input'])}: {reason}" if field else reason
