"""What a store remembers of its run: run.json, read with care and compared field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import StoreError
from .whole import recover

FORMAT = "frieze store 1"
# Fields of a run that say where it happened, with paths and addresses: never published.
UNPUBLISHED = frozenset({"spec", "outputs", "sources"})
# What damaged metadata or data raise, from JSON, numpy and zarr.
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def is_store(path: Path) -> bool:
    """Whether a folder is a store of ours, whole or left half made."""
    return (path / "frieze").is_dir() and all(
        entry.name in ("frieze", "zarr.json") or entry.name.isdigit() for entry in path.iterdir()
    )


def read_about(path: Path) -> dict[str, Any]:
    """run.json of the store at `path`; raises `StoreError` that says what is there instead."""
    if not path.exists():
        recover(path)
    if not path.is_dir():
        raise StoreError(f"there is no store at {path}")
    file = path / "frieze" / "run.json"
    if not file.is_file():
        what = "half made; draw it again" if is_store(path) else "no Frieze store"
        raise StoreError(f"{path} is {what}" + ("" if is_store(path) else "; give one's path"))
    try:
        about = json.loads(file.read_text())
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, this version reads {FORMAT!r}")
    except DAMAGE as error:
        raise damaged(path, error) from error
    assert isinstance(about, dict)
    return about


def damaged(path: Path, error: BaseException) -> StoreError:
    """The error to raise for whatever damaged files made a library raise."""
    if isinstance(error, StoreError):
        return error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return StoreError(f"{path} is damaged ({reason}); restore it from a copy or draw it again")


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
    if name == "lora" and value:
        return [_placeless("model", file) for file in value]
    if name in ("model", "lora") and Path(str(value)).is_absolute():
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
