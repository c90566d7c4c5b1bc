"""Names and shapes of the weights in a checkpoint's files, compared with what its configs ask for.

Only headers are read, and networks are built without memory: so a part that lacks a weight, or has
one of another shape, is told before anything else is done. A library would fill it with noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.configs import index_of, read_json
from ..checkpoints.weight_files import shapes
from ..errors import ModelError
from ..models import loading
from . import meta_render

if TYPE_CHECKING:
    from ..checkpoints.facts import ModelFacts
    from ..models.meta_models import Skeleton
    from ..spec.render_spec import RenderSpec

Shape = tuple[int, ...]
# What makes words of hidden states: encoders of prompts are asked for these alone.
_UNREAD = re.compile(r"^lm_head\.")


def check(facts: ModelFacts, spec: RenderSpec) -> tuple[str, ...]:
    """Layers that files have and configs do not, a line for each part.

    Raises `ModelError` for a part whose weights are not all there in their shapes, and for LoRAs
    that do not fit. Parts that are quantised on disk are left to their loaders.
    """
    model = Path(facts.folder)
    listed = index_of(model).parts
    _, parts = meta_render.skeleton(facts, spec)
    told = [_check_drawing(part.folder, part, spec.variant) for part in parts]
    told += [
        _check_encoder(model / name, model, str(listed[name][1]), spec.variant)
        for name in facts.cost.weight_bytes
        if name in listed and listed[name][0] == "transformers"
    ]
    return tuple(line for line in told if line)


def _check_drawing(folder: Path, part: Skeleton, variant: str | None) -> str:
    """The same of a part that diffusers loads."""
    found = _of_files(folder, variant)
    if found is None or _is_quantised(folder):
        return ""
    part.module._fix_state_dict_keys_on_load(found)  # type: ignore[operator]
    lacks = [name for name in part.shapes if name not in found]
    _refuse(folder, lacks, _others(found, part.shapes))
    ignored = getattr(part.module, "_keys_to_ignore_on_load_unexpected", None) or ()
    more = (name for name in found if name not in part.shapes)
    return _unused(
        folder, (n for n in more if not any(re.search(p, n) for p in ignored)), part.shapes
    )


def _of_files(folder: Path, variant: str | None) -> dict[str, Shape] | None:
    """Shapes by name in the files that diffusers reads; None where it does not find any."""
    stem, ending = "diffusion_pytorch_model", "safetensors"
    for infix in ([f".{variant}"] if variant else []) + [""]:
        index = folder / f"{stem}.{ending}.index{infix}.json"
        if index.is_file():
            shards = sorted(set(read_json(index)["weight_map"].values()))
            if gone := [shard for shard in shards if not (folder / shard).is_file()]:
                raise ModelError(
                    f"{folder / gone[0]} is missing, which {index.name} names; fetch it"
                )
            return {k: s for shard in shards for k, s in shapes(folder / shard).items()}
        if (file := folder / f"{stem}{infix}.{ending}").is_file():
            return shapes(file)
    return None


def _check_encoder(folder: Path, model: Path, kind: str, variant: str | None) -> str:
    """The same of a part that transformers loads; remembered while its files stay the same."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors*"))]
    times = tuple((file.name, file.stat().st_mtime_ns) for file in files if file.is_file())
    return _checked_encoder(folder, model, kind, variant, times)


@lru_cache(maxsize=64)
def _checked_encoder(
    folder: Path, model: Path, kind: str, variant: str | None, times: tuple[Any, ...]
) -> str:
    if _is_quantised(folder):
        return ""
    found = loading.on_meta(kind, folder, **loading.variant_option(folder, model, variant))
    if found is None:
        return ""
    module, info = found
    others = {name: (tuple(a), tuple(b)) for name, a, b in info["mismatched_keys"]}
    lacks = sorted(name for name in info["missing_keys"] if not _UNREAD.search(name))
    _refuse(folder, lacks, others)
    shapes = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    return _unused(folder, sorted(info["unexpected_keys"]), shapes)


def _is_quantised(folder: Path) -> bool:
    return "quantization_config" in read_json(folder / "config.json")


def _others(
    found: Mapping[str, Shape], shapes: Mapping[str, Shape]
) -> dict[str, tuple[Shape, Shape]]:
    """Weights of other shapes: in the file, and by the config."""
    both = (name for name in shapes if name in found and found[name] != shapes[name])
    return {name: (found[name], shapes[name]) for name in both}


def _refuse(folder: Path, lacks: list[str], others: Mapping[str, tuple[Shape, Shape]]) -> None:
    if lacks:
        raise ModelError(
            f"{folder} lacks {len(lacks)} weights, {lacks[0]} first; fetch the model anew"
        )
    for name, (theirs, ours) in others.items():
        raise ModelError(
            f"{folder}: {name} is {list(theirs)}, and by config.json {list(ours)}; "
            "fetch the model anew"
        )


def _unused(folder: Path, more: Iterable[str], shapes: Mapping[str, Shape]) -> str:
    """A line if the files have layers like those of the network, and more of them.

    Other weights that nobody asks for are of other networks, as a decoder beside its encoder.
    """
    forms = {_form(name) for name in shapes}
    layers = [name for name in more if _form(name) in forms]
    if not layers:
        return ""
    return (
        f"{folder} has {len(layers)} weights more than its config.json has layers for, "
        f"{layers[0]} first; they are left out"
    )


def _form(name: str) -> str:
    return re.sub(r"\d+", "#", name)
