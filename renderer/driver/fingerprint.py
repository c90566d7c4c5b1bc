"""What a store remembers of a run: its arrays, and a digest of all that decides its pixels."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ..checkpoints import controlnet, lora
from ..checkpoints.decoder import OWN
from ..color.conversion import Conversion
from ..color.profiles import profile
from ..errors import ExportError
from ..inputs import media
from ..inputs.metadata import NOTHING, Metadata
from ..inputs.metadata import read as metadata_of
from ..outputs.targets import Targets
from ..planning.canvas_plan import CanvasPlan
from ..sampling.schedule_table import sampler
from ..spec.networks import has_stage_loras
from ..spec.render_spec import RenderSpec
from ..spec.stage_spec import StageSpec
from ..store.provenance import own_colors, recorded_profile

FULL_DIGEST = 256 * 2**20
SAMPLE = 2**20
WEIGHTS = frozenset({".safetensors", ".json"})
TEXTS = frozenset({".txt", ".model", ".jinja"})
# What identities of earlier stores do not have.
ADDED = frozenset({"texts"})
# What every store names of a stage.
STAGE_FIELDS = frozenset(
    {"scale", "start", "steps", "shift", "enlarge", "prompt", "guidance_scale"},
)
FILES = frozenset(
    {
        "lora",
        "lora_2",
        "decoder",
        "init",
        "upscale",
        "image",
        "mask",
        "edit",
        "controlnet",
        "control",
    }
)


def run_record(plan: CanvasPlan, targets: Targets, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the store remembers of a run: enough to resume it and to say what drew the picture.

    Guidance scales are those in use, as the family's pipeline counts them.
    """
    icc = None if plan.spec.color is None else recorded_profile(conversion_of(plan).target)
    carried = _carried(plan).as_json()
    scale = plan.guidance.scale + plan.facts.guidance.neutral - 1
    return {
        "sampler": sampler(plan.facts.schedule),
        "guidance": {"cfg": scale, "embedded": plan.guidance.embedded},
        "spec": plan.spec.model_dump(mode="json"),
        "outputs": targets.record(),
        "sources": {name: source.as_json() for name, source in plan.sources.items()},
        **({"carried": carried} if carried else {}),
        **({} if icc is None else {"profile": icc}),
        **about,
    }


def conversion_of(plan: CanvasPlan) -> Conversion:
    """From the pixels that are drawn to files in the colours asked for; raises `ExportError`."""
    source, asked = own_colors(_carried(plan)), plan.spec.color
    target = source if asked is None else profile(asked, ExportError)
    return Conversion(source, target, plan.spec.intent)


def _carried(plan: CanvasPlan) -> Metadata:
    """What a picture that is made larger says of itself, for files that are delivered."""
    if "upscale" not in plan.sources or plan.frames:
        return NOTHING
    path = plan.sources["upscale"].path
    own = None if plan.spec.redraws else media.own_profile(path)
    return replace(metadata_of(path), icc=own)


def identity(plan: CanvasPlan, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that decides the pixels: picture fields, stages, weights, version.

    `like` is the identity in a store, which may be older than some of these facts.
    """
    about = _identity(plan)
    added_later = set() if like is None else ADDED - like.keys()
    known = {} if like is None else like.get("picture") or {}
    about["picture"]["stages"] = _stages(about["picture"]["stages"], known.get("stages"))
    return {name: value for name, value in about.items() if name not in added_later}


def _stages(stages: Any, known: Any) -> Any:
    """Fields of stages that decide pixels; those that came later where they say something.

    Files count by what is in them. `known` are those of a store that does or does not name them.
    """
    plain = StageSpec().model_dump(mode="json")
    found = []
    for index, stage in enumerate(stages or ()):
        named = STAGE_FIELDS.union(known[index] if known and index < len(known) else ())
        own = {name: value for name, value in stage.items() if name not in FILES}
        found.append({n: v for n, v in own.items() if n in named or v != plain[n]})
    return found or stages


def _identity(plan: CanvasPlan) -> dict[str, Any]:
    return {
        "picture": _picture(plan.spec),
        "weights": weights_digest(Path(plan.facts.folder)),
        "texts": texts_digest(Path(plan.facts.folder)),
        "version": metadata.version("frieze"),
        "loras": lora.identity(plan.spec.lora),
        "loras_2": lora.identity(plan.spec.lora_2),
        **({"stage_loras": _stage_loras(plan)} if has_stage_loras(plan.spec) else {}),
        **({} if plan.decoder is None else {"decoder": decoder_digest(Path(plan.decoder.folder))}),
        **_controlnet(plan.spec),
        **({} if plan.detected is None else {"detected": list(plan.detected)}),
        **({} if plan.inpaint is None else {"outside": "stays"}),
        "starts_from": {name: source.digest for name, source in plan.sources.items()},
        "stages": [
            {
                "height": stage.canvas.height,
                "width": stage.canvas.width,
                "levels": [[level.timestep, level.alpha, level.sigma] for level in stage.levels],
                "enlarge": stage.enlarge,
            }
            for stage in plan.stages
        ],
    }


def _controlnet(spec: RenderSpec) -> dict[str, Any]:
    """Weights of one or of several; pictures that they follow are among what is started from."""
    digests = [decoder_digest(controlnet.folder_of(name)) for name in spec.controlnet]
    if not digests:
        return {}
    return {"controlnet": digests if len(digests) > 1 else digests[0]}


def _stage_loras(plan: CanvasPlan) -> list[list[list[dict[str, Any]]]]:
    return [[lora.identity(each) for each in stage.loras] for stage in plan.stages]


def _picture(spec: RenderSpec) -> dict[str, Any]:
    """Fields that decide pixels; files count by what is in them, not by where they lie."""
    found = {name: value for name, value in spec.identity().items() if name not in FILES}
    if spec.edit:
        found["edit"] = [each.prompt for each in spec.edit]
    return found


def fingerprint(about: Mapping[str, Any]) -> str:
    """A digest of the run's identity."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """A digest of a model folder's weights and configs, of those behind links too.

    A decoder of any size that came into the folder later does not count: whoever draws with it
    has its own digest. Files past 256 MiB enter by size, first and last MiB: a full read of 24 GB
    would cost more than it protects from. Files that did not change are not read again.
    """
    return _of_files(folder, WEIGHTS, without=OWN)


def decoder_digest(folder: Path) -> str:
    """The same of a decoder of any size, without what lies in folders beside it: its training."""
    return _of_files(folder, WEIGHTS, is_flat=True)


def texts_digest(folder: Path) -> str:
    """A digest of what else tokenizers read: merges, sentence pieces, chat templates."""
    return _of_files(folder, TEXTS)


def _of_files(
    folder: Path, kinds: frozenset[str], *, is_flat: bool = False, without: str | None = None
) -> str:
    there = folder.iterdir() if is_flat else _files(folder)
    counted = (path for path in there if path.relative_to(folder).parts[0] != without)
    files = sorted(path for path in counted if path.suffix in kinds and path.is_file())
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
