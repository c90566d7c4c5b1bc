"""What a store remembers of a run: its arrays, and a digest of all that decides its pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .outputs import Targets
from .pixels import LatentArray, StoreLayout
from .plan import CanvasPlan

FULL_DIGEST = 256 * 2**20
SAMPLE = 2**20


def store_layout(made: CanvasPlan) -> StoreLayout:
    """The store's arrays for a plan: pixels in blocks, and two slots of latents per stage."""
    spec, downscale = made.spec, made.facts.latent.downscale

    def picture(index: int) -> LatentArray:
        stage = made.stages[index]
        size = (stage.canvas.height * downscale, stage.canvas.width * downscale)
        rows = stage.align * downscale
        return LatentArray(name=f"{index}-picture", shape=(1, 3, 1, *size), chunk_rows=rows)

    return StoreLayout(
        height=spec.height,
        width=spec.width,
        dtype="uint8" if spec.bits == 8 else "uint16",
        block=made.block,
        latents=(
            *(_latents(made, i) for i in range(len(made.stages))),
            *map(picture, made.painted),
        ),
    )


def _latents(made: CanvasPlan, index: int) -> LatentArray:
    """Two slots of a stage's latents, so that a crash while one is written leaves the other."""
    stage = made.stages[index]
    shape = (2, made.facts.latent.channels, 1, stage.canvas.height, stage.canvas.width)
    return LatentArray(name=str(index), shape=shape, chunk_rows=stage.align)


def run_record(made: CanvasPlan, targets: Targets, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the store remembers of a run: enough to resume it and to say what drew the picture."""
    return {
        "spec": made.spec.model_dump(mode="json"),
        "outputs": targets.record(),
        **about,
    }


def identity(made: CanvasPlan) -> dict[str, Any]:
    """All that decides the pixels: picture fields, stages, weights, version."""
    return {
        "picture": made.spec.picture(),
        "weights": weights_digest(Path(made.facts.folder)),
        "version": metadata.version("frieze"),
        "stages": [
            {
                "height": stage.canvas.height,
                "width": stage.canvas.width,
                "sigmas": list(stage.sigmas),
                "enlarge": stage.enlarge,
            }
            for stage in made.stages
        ],
    }


def fingerprint(about: Mapping[str, Any]) -> str:
    """A digest of the run's identity."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """A digest of a model folder's weights and configs.

    Files past 256 MiB enter by size, first and last MiB: a full read of 24 GB would cost more
    than it protects from.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".safetensors", ".json") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        with path.open("rb") as file:
            if size <= FULL_DIGEST:
                digest.update(file.read())
            else:
                digest.update(file.read(SAMPLE))
                file.seek(-SAMPLE, 2)
                digest.update(file.read())
    return digest.hexdigest()
