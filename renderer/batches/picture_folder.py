"""A folder of pictures and clips as items of a batch: each is made larger in its own shape.

An item is called as its file without the suffix. What a picture shows may stand beside it in a
text file of the same name, as trainers have captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import describe
from ..checkpoints.decoder import PIXELS_A_TOKEN
from ..errors import SpecError
from ..inputs import media
from ..spec.render_spec import RenderSpec
from ..spec.values import ValuesError, file_text

CAPTION = ".txt"
TIFF, CLIPS = (".tif", ".tiff"), (".mp4", ".mov", ".mkv")  # suffixes that what is made keeps
MOST = 10_000  # of a folder


def items(
    folder: str | Path, spec: RenderSpec, fields: Mapping[str, Any], also: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """The values of each item, in the order of names; `fields` are those that all have.

    `spec` is that of all, whose size is the box that each fills in its own shape. Raises
    `SpecError` for a folder without pictures, `MediaError` for a file that is none.
    """
    files = _files(Path(folder))
    unit = PIXELS_A_TOKEN
    if spec.redraws and spec.decoder is None:
        unit = describe(spec.model, spec.revision, spec.variant).latent.unit
    for file in files:
        values = {**fields, **own_fields(file, fields), "upscale": str(file), "name": file.stem}
        found = media.peek(file)
        values["height"], values["width"] = fitting(
            (spec.height, spec.width), (found.height, found.width), unit
        )
        if spec.redraws and (caption := _caption(file)) is not None:
            values["prompt"] = caption
        suffix = _suffix(file, is_clip=values["num_frames"] > 1)
        yield {**values, "out": f"{{name}}{suffix}", "also": list(also)}


def own_fields(file: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The frames of a file, so many a second, and its depth, where `given` does not say."""
    found = media.peek(file)
    own: dict[str, Any] = {"num_frames": found.frames}
    if found.fps is not None:
        own["fps"] = found.fps
    if media.is_deep(file):
        own["bits"] = 16
    return {name: value for name, value in own.items() if name not in given}


def fitting(box: tuple[int, int], size: tuple[int, int], unit: int) -> tuple[int, int]:
    """The largest rows and columns of about a picture's shape in a box, in multiples of `unit`."""
    scale = min(most / side for most, side in zip(box, size, strict=True))
    least, most = sorted(size)
    shorter = max(1, int(least * scale + 1e-9) // unit) * unit
    longest = int(most * scale + 1e-9) // unit
    longer = max(1, min(longest, round(shorter * most / (least * unit)))) * unit
    return (shorter, longer) if size[0] <= size[1] else (longer, shorter)


def _files(folder: Path) -> list[Path]:
    """Those that are to be pictures: neither hidden, nor texts, nor folders."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SpecError(f"{folder} cannot be read: {error.strerror}") from None
    found = [
        entry
        for entry in entries
        if entry.is_file() and not entry.name.startswith(".") and entry.suffix != CAPTION
    ]
    if not found:
        raise SpecError(f"{folder} holds no picture; give a folder of pictures or clips, or one")
    if len(found) > MOST:
        raise SpecError(f"{folder} holds {len(found)} files; a batch holds {MOST} at the most")
    return found


def _caption(file: Path) -> str | None:
    """What stands in the text beside a picture, None where there is none."""
    text = file.with_suffix(CAPTION)
    if not text.is_file():
        return None
    try:
        return " ".join(file_text(text).split())
    except ValuesError as error:
        raise SpecError(f"{text} cannot be read: {error}") from None


def _suffix(file: Path, *, is_clip: bool) -> str:
    """The source's own where what is made can have it."""
    suffix = file.suffix.lower()
    if is_clip:
        return suffix if suffix in CLIPS else CLIPS[0]
    return suffix if suffix in TIFF else ".png"
