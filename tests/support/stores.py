"""Stores of tests that are changed on disk: damaged, sealed again, or made as they once were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frieze.renderer.journal.checksums import sealed

Values = dict[str, Any]


def flipped(file: Path, position: int) -> None:
    """Turn one bit of a file over."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def rewritten(path: Path, change: Callable[[Values], None], *, seals: bool = True) -> None:
    """Change a store's run.json, as somebody would who knows of checksums, or not."""
    file = path / "frieze" / "run.json"
    about = json.loads(file.read_text())
    change(about)
    about.pop("sum", None)
    file.write_text(json.dumps(sealed(about) if seals else about))


def aged(path: Path) -> Path:
    """Make a store what it was before digests: nothing tells of them any more."""

    def forget(about: Values) -> None:
        del about["documents"]

    rewritten(path, forget, seals=False)
    journal = path / "frieze" / "journal.jsonl"
    if journal.exists():
        events = map(json.loads, journal.read_text().splitlines())
        old = [_aged(event) for event in events if event["event"] != "kept"]
        journal.write_text("".join(f"{json.dumps(event)}\n" for event in old))
    return path


def _aged(event: Values) -> Values:
    for name in ("sum", "sums", "levels", "focus"):
        event.pop(name, None)
    return event | ({"ids": list(event["ids"])} if "ids" in event else {})
