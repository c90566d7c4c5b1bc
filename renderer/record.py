"""What a store remembers of a run: its arrays, and a digest of all that decides its pixels."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import lora
from .outputs import Targets
from .pixels import LatentArray, StoreLayout
from .plan import CanvasPlan
from .sampling import solver
from .saving import NUM_SLOTS
from .schedules import sampler

FULL_DIGEST = 256 * 2**20
SAMPLE = 2**20
WEIGHTS = frozenset({".safetensors", ".json"})
TEXTS = frozenset({".txt", ".model", ".jinja"})
# What identities of earlier stores do not have.
ADDED = frozenset({"texts"})
FILES = frozenset({"lora", "lora_2", "init", "image"})


def store_layout(made: CanvasPlan) -> StoreLayout:
    """The store's arrays for a plan: pixels in blocks, and the saved states of every stage."""
    spec = made.spec
    return StoreLayout(
        height=spec.height,
        width=spec.width,
        dtype="uint8" if spec.bits == 8 else "uint16",
        block=made.block,
        frames=made.frames,
        fps=spec.fps if made.frames else None,
        latents=tuple(_array(made, name) for name in made.arrays),
    )


def _array(made: CanvasPlan, name: str) -> LatentArray:
    """One of the plan's arrays: a stage's latents, its picture, what guides or starts it."""
    number, _, kind = name.partition("-")
    if not kind and number.isdigit():
        return _latents(made, int(number))
    if kind in ("guide", "clean"):
        return _kept(made, name, int(number))
    if name == "image":
        source = made.sources[name]
        return LatentArray(name, (1, 3, 1, source.height, source.width), source.height)
    stage_index = int(number) if number.isdigit() else 0
    rows = made.stages[stage_index].align * made.facts.latent.downscale
    frames = 1 if kind == "image" else made.spec.num_frames
    shape = (1, 3, frames, *made.size(stage_index))
    return LatentArray(name, shape, chunk_rows=rows, chunk_frames=1)


def _latents(made: CanvasPlan, index: int) -> LatentArray:
    """Slots of a stage's latents and of what steps remember: one is whole at any time."""
    stage = made.stages[index]
    canvas = stage.canvas
    guide = made.method.guide if index else None
    num_memory = solver(made.facts.schedule).num_history + (guide.num_memory if guide else 0)
    channels = made.facts.latent.channels * (1 + num_memory)
    shape = (NUM_SLOTS, channels, canvas.frames, canvas.height, canvas.width)
    return LatentArray(name=str(index), shape=shape, chunk_rows=stage.align)


def _kept(made: CanvasPlan, name: str, index: int) -> LatentArray:
    """Latents that guide a stage, or x0 of each of its steps, which guides the next one."""
    stage, canvas = made.stages[index], made.stages[index].canvas
    num_slots = 1 if name.endswith("guide") else stage.num_steps
    channels = made.facts.latent.channels
    shape = (num_slots, channels, canvas.frames, canvas.height, canvas.width)
    return LatentArray(name, shape, chunk_rows=stage.align)


def run_record(made: CanvasPlan, targets: Targets, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the store remembers of a run: enough to resume it and to say what drew the picture.

    Guidance scales are those in use, as the family's pipeline counts them.
    """
    scale = made.guidance.scale + made.facts.guidance.neutral - 1
    return {
        "sampler": sampler(made.facts.schedule),
        "guidance": {"cfg": scale, "embedded": made.guidance.embedded},
        "spec": made.spec.model_dump(mode="json"),
        "outputs": targets.record(),
        "sources": {name: source.as_json() for name, source in made.sources.items()},
        **about,
    }


def identity(made: CanvasPlan, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that decides the pixels: picture fields, stages, weights, version.

    `like` is the identity in a store, which may be older than some of these facts.
    """
    about = _identity(made)
    added_later = set() if like is None else ADDED - like.keys()
    return {name: value for name, value in about.items() if name not in added_later}


def _identity(made: CanvasPlan) -> dict[str, Any]:
    return {
        # Files count by what is in them, not by where they lie.
        "picture": {k: v for k, v in made.spec.picture().items() if k not in FILES},
        "weights": weights_digest(Path(made.facts.folder)),
        "texts": texts_digest(Path(made.facts.folder)),
        "version": metadata.version("frieze"),
        "loras": lora.identity(lora.parse(made.spec.lora)),
        "loras_2": lora.identity(lora.parse(made.spec.lora_2)),
        **({} if made.detected is None else {"detected": list(made.detected)}),
        "starts_from": {name: source.digest for name, source in made.sources.items()},
        "stages": [
            {
                "height": stage.canvas.height,
                "width": stage.canvas.width,
                "levels": [[level.timestep, level.alpha, level.sigma] for level in stage.levels],
                "enlarge": stage.enlarge,
            }
            for stage in made.stages
        ],
    }


def fingerprint(about: Mapping[str, Any]) -> str:
    """A digest of the run's identity."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """A digest of a model folder's weights and configs, of those behind links too.

    Files past 256 MiB enter by size, first and last MiB: a full read of 24 GB would cost more
    than it protects from. Files that did not change are not read again.
    """
    return _of_files(folder, WEIGHTS)


def texts_digest(folder: Path) -> str:
    """A digest of what else tokenizers read: merges, sentence pieces, chat templates."""
    return _of_files(folder, TEXTS)


def _of_files(folder: Path, kinds: frozenset[str]) -> str:
    files = sorted(path for path in _files(folder) if path.suffix in kinds and path.is_file())
    stamps = (path.stat() for path in files)
    return _digest(
        folder, tuple((p, s.st_size, s.st_mtime_ns) for p, s in zip(files, stamps, strict=True))
    )


def _files(folder: Path, inside: tuple[str, ...] = ()) -> Iterator[Path]:
    """All that lies below a folder, links to folders followed, but not round in a circle."""
    real = os.path.realpath(folder)
    if real in inside:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path, (*inside, real))
        else:
            yield path


@functools.lru_cache(maxsize=16)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        with path.open("rb") as file:
            if size <= FULL_DIGEST:
                digest.update(file.read())
            else:
                digest.update(file.read(SAMPLE))
                file.seek(-SAMPLE, 2)
                digest.update(file.read())
    return digest.hexdigest()
