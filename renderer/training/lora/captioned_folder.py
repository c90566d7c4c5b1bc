"""The data of a LoRA's training: a folder with captions, or the demo's scenes; it is checked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoints.facts import ModelFacts
from ...errors import MediaError, SpecError
from ...inputs import media
from ..pictures.picture_folder import file_names
from ..recipe import SCENES
from .aspect_buckets import Size, bucket, buckets
from .captions import METADATA, captions, triggered
from .examples import Example, Examples, covered
from .lora_recipe import LoraRecipe

TEXTS = (".txt", ".json", ".jsonl", ".csv", ".md", ".yaml", ".yml", ".toml", ".log", ".npz")


@dataclass(frozen=True)
class LoraData:
    """What a recipe learns from, what a later run knows it again by, and remarks."""

    examples: Examples
    identity: list[list[Any]]
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def data_of(recipe: LoraRecipe, facts: ModelFacts) -> LoraData:
    """The pictures or clips of a recipe, found and checked; raises `SpecError`."""
    size = (recipe.height, recipe.width)
    if recipe.data == SCENES:
        number = min(recipe.pictures, 1000)
        return LoraData(Examples((), number, size), [[SCENES, number]])
    names = file_names(recipe.data)
    sizes = buckets(size, facts.latent.unit) if recipe.aspect_buckets else (size,)
    found, left_out, cropped = _looked_at(names, recipe, sizes)
    if not found:
        raise SpecError(_nothing(recipe.data, names, left_out))
    told = captions(names)
    files = tuple(_captioned(found, told, recipe))
    identity = [
        [os.path.relpath(each.path, recipe.data), each.num_bytes, each.caption] for each in files
    ]
    remarks = []
    if recipe.aspect_buckets:
        remarks.append(_by_size(files))
    elif cropped:
        remarks.append(
            f"{cropped} of {len(files)} are of another shape than {recipe.width}x{recipe.height}; "
            "their middle is learned"
        )
    examples = Examples(files, 0, size, recipe.num_frames)
    return LoraData(examples, identity, tuple(left_out), tuple(remarks))


def _looked_at(
    names: Sequence[str], recipe: LoraRecipe, sizes: Sequence[Size]
) -> tuple[list[tuple[str, Size]], list[str], int]:
    """Those that are large and long enough, and the size of each that is learned; why others are
    not, and how many will be cropped.
    """
    found, left_out, cropped = list[tuple[str, Size]](), list[str](), 0
    frames = recipe.num_frames
    for name in names:
        if name.endswith(TEXTS) or os.path.basename(name) in METADATA:
            continue
        if len(found) == recipe.pictures:
            break
        try:
            seen = media.peek(name)
        except MediaError as error:
            left_out.append(str(error))
            continue
        _check_length(name, seen, frames)
        size = bucket(sizes, seen.height, seen.width)
        if size is None:
            left_out.append(_too_small(name, seen, sizes[0]))
            continue
        found.append((name, size))
        cropped += covered(seen.height, seen.width, size) != (seen.height, seen.width)
    return found, left_out, cropped


def _check_length(name: str, seen: media.Size, frames: int) -> None:
    """Raise `SpecError` for a clip of another length than what is trained."""
    if seen.frames == frames:
        return
    what = f"data {name} is a clip of {seen.frames} frames" if seen.frames > 1 else None
    what = what or f"data {name} is a picture"
    wanted = f"clips of {frames} frames are" if frames > 1 else "pictures are"
    works = f"--frames {seen.frames}, or data of one length, works"
    raise SpecError(f"{what}, and {wanted} to be trained on; {works}")


def _by_size(files: Sequence[Example]) -> str:
    """How many are learned at which size."""
    counts = Counter(each.size for each in files).most_common()
    return "sizes: " + ", ".join(f"{size[1]}x{size[0]} of {n}" for size, n in counts)


def _too_small(name: str, seen: media.Size, size: Size) -> str:
    return (
        f"{name} of {seen.width}x{seen.height} is smaller than {size[1]}x{size[0]}; larger "
        "pictures or a smaller --size work"
    )


def _captioned(
    found: Sequence[tuple[str, Size]], told: dict[str, str], recipe: LoraRecipe
) -> list[Example]:
    """The files with their captions; raises `SpecError` where some have none."""
    without = [name for name, _ in found if name not in told]
    if without and recipe.caption is None:
        name = Path(without[0])
        raise SpecError(
            f"data {recipe.data!r}: {len(without)} of {len(found)} have no caption, {name.name} "
            f"first; a text {name.stem}.txt beside it, a metadata.jsonl with file_name and text, "
            "or --caption for all that have none works"
        )
    return [
        Example(
            name,
            os.path.getsize(name),
            triggered(told.get(name, recipe.caption or ""), recipe.trigger),
            size,
        )
        for name, size in found
    ]


def _nothing(folder: str, names: Sequence[str], left_out: Sequence[str]) -> str:
    if left_out:
        more = f"; so it is with all {len(left_out)} files" if len(left_out) > 1 else ""
        return f"data {folder!r}: {left_out[0]}{more}"
    there = f"{len(names)} files" if names else "nothing"
    return f"data {folder!r} holds {there}, and no picture or clip that Frieze reads"
