"""What a store remembers of its run: what of it is published, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import StoreError

# Fields of a run that say where it happened, with paths and addresses: never published.
UNPUBLISHED = frozenset({"spec", "outputs", "sources"})
# What damaged metadata or data raise, from JSON, numpy and zarr.
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError)


def is_store(path: Path) -> bool:
    """Whether a folder is a store of ours, whole or left half made."""
    return (path / "frieze").is_dir() and are_ours(entry.name for entry in path.iterdir())


def are_ours(names: Iterable[str]) -> bool:
    """Whether these are the names at the top of a store."""
    found = set(names)
    return "frieze" in found and all(
        name in ("frieze", "zarr.json") or name.isdigit() for name in found
    )


def damaged(where: object, error: BaseException) -> StoreError:
    """The error to raise for whatever damaged files made a library raise."""
    if isinstance(error, StoreError):
        return error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return StoreError(f"{where} is damaged ({reason}); restore it from a copy or draw it again")


def published(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run without what no reader of the picture should learn."""
    shown = {name: value for name, value in run.items() if name not in UNPUBLISHED}
    picture = shown.get("picture")
    if isinstance(picture, Mapping):
        shown["picture"] = {name: _placeless(name, value) for name, value in picture.items()}
    return shown


def _placeless(name: str, value: Any) -> Any:
    """A field of a picture without the folders of this machine: a file's name is enough."""
    if name in ("init", "image") and value is not None:
        return Path(str(value)).name
    if name in ("lora", "lora_2") and value:
        return [_placeless("model", file) for file in value]
    if name in ("model", "lora") and str(value).startswith(("/", "~", ".")):
        return Path(str(value)).name
    return value


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """For every field of `new` that differs, as in: seed: 7 in the store, 8 asked for."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = [
            differences(old.get(key), value, f"{name}.{key}" if name else key)
            for key, value in new.items()
        ]
        return [line for part in parts for line in part]
    if json.dumps(old) == json.dumps(new):
        return []
    return [f"{name}: {_short(old)} in the store, {_short(new)} asked for"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
