"""Weight files of a checkpoint: safetensors alone, and of the part's own folder.

A pickle can run code when it is loaded. What is not loaded is nobody's business: a trainer's
checkpoints beside the parts, a safety checker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from ..input_files import fault
from .configs import read_json

if TYPE_CHECKING:
    from .configs import Index


PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


# Of a pipeline's parts those that no picture needs, or not every family's; `component` checks
# what it loads.
UNUSED = frozenset({"safety_checker", "image_encoder"})


def check_parts(folder: Path, index: Index) -> None:
    """Refuse a checkpoint of which a part that model_index.json lists is unsafe (`ModelError`)."""
    for name in index.parts:
        if index.has(name) and name not in UNUSED and (folder / name).is_dir():
            check_part(folder / name)


def check_part(part: Path) -> None:
    """Raise `ModelError` unless all that a library would load from a folder is safetensors.

    That is also decided by two files of names: an index of shards, which says which files they
    are, and a PEFT adapter's config, which has weights of its own loaded as well.
    """
    names = sorted(path.name for path in part.iterdir()) if part.is_dir() else []
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"{part / pickles[0]} is a pickle and may run code; convert the weights to .safetensors"
        )
    if "adapter_config.json" in names:
        raise ModelError(
            f"{part / 'adapter_config.json'} adds an adapter to the part, which is not done "
            "unasked; merge it into the weights, or give it with --lora"
        )
    for name in names:
        if "safetensors.index" in name and name.endswith(".json"):
            _check_index(part / name)


def _check_index(path: Path) -> None:
    """An index of shards may name safetensors of its own folder, and nothing else."""
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"{path} has no weight_map; fetch the model anew")
    for shard in shards.values():
        is_plain = isinstance(shard, str) and PurePath(shard).name == shard
        if not (is_plain and shard.endswith(".safetensors")):
            raise ModelError(
                f"{path} names {str(shard)[:80]!r} for weights; only .safetensors beside it are "
                "loaded, for anything else may run code: fetch the model anew"
            )


def weight_bytes(folder: Path, component: str) -> int:
    """Bytes of a component's weights on disk; raises `ModelError` where it has none."""
    files = sorted((folder / component).glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder / component} holds no .safetensors; fetch the model anew")
    for file in files:
        check_weights(file)
    return sum(file.stat().st_size for file in files)


def check_weights(file: Path) -> None:
    """Read a weight file's header, which says how long it must be; raises `ModelError`."""
    with _opened(file) as weights:
        weights.keys()


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors, from its header; raises `ModelError`."""
    with _opened(file) as weights:
        return {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118  it is no dict


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file of which headers are read."""
    if (why := fault(file)) is not None:
        raise ModelError(f"{why}; fetch it anew")
    try:
        with safe_open(file, framework="numpy") as weights:
            yield weights
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is corrupt ({error}); fetch it anew") from None
