"""Captions of the pictures of a folder, as trainers of LoRAs write them.

A text beside a picture, of the same name and the suffix .txt; or `metadata.jsonl`, an object a line
with `file_name` and `text` (`caption` and `prompt` mean the same), as the `imagefolder` of Hugging
Face's datasets has it, or `metadata.csv` with these columns. Names are relative to such a file.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import SpecError, shown
from ...spec.values import is_text

METADATA = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("text", "caption", "prompt")
TRIGGER = "[trigger]"  # where in a caption it stands


def captions(names: Sequence[str]) -> dict[str, str]:
    """By picture, of the files of a folder; those without have none.

    A text beside a picture counts before a row of metadata. Raises `SpecError` for a text that
    cannot be read, or a row that names no file of the folder.
    """
    there, found = set(names), dict[str, str]()
    for name in names:
        if os.path.basename(name) in METADATA:
            for where, row in _rows(Path(name)):
                path, text = _caption(Path(name), where, row)
                if path not in there:
                    raise SpecError(
                        f"{name}, {where}: there is no {shown(row['file_name'])}; a file of its "
                        "folder works"
                    )
                found[path] = text
    texts = [name for name in names if name.endswith(".txt")]
    stems = {os.path.splitext(text)[0]: text for text in texts}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix != ".txt" and stem in stems:
            found[name] = _checked(stems[stem], _read(Path(stems[stem])).strip())
    return found


def triggered(text: str, trigger: str | None) -> str:
    """A caption with a trigger word: where it says so, else before all."""
    if trigger is None:
        return text
    if TRIGGER in text:
        return text.replace(TRIGGER, trigger)
    return f"{trigger}, {text}" if text else trigger


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file of metadata, and where they are."""
    lines = _read(path).splitlines()
    if path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(lines), 1):
            yield f"row {number}", row
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{path}, line {number}: no JSON ({error})") from None
        if not isinstance(row, dict):
            raise SpecError(f"{path}, line {number}: an object with file_name and text works")
        yield f"line {number}", row


def _caption(path: Path, where: str, row: dict[str, Any]) -> tuple[str, str]:
    """The file and the caption of a row."""
    name, text = row.get("file_name"), next((row[c] for c in COLUMNS if row.get(c)), None)
    if not isinstance(name, str) or not isinstance(text, str):
        raise SpecError(
            f"{path}, {where}: an object with file_name and text works, not one with "
            f"{', '.join(map(shown, row)) or 'nothing'}"
        )
    return os.path.normpath(path.parent / name), _checked(f"{path}, {where}", text.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} is no caption that can be read ({error}); UTF-8 works") from None


def _checked(where: str, text: str) -> str:
    if not is_text(text):
        raise SpecError(f"{where}: {shown(text)} is no text in UTF-8, or has a zero byte")
    return text
