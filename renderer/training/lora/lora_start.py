"""A LoRA that a training goes on from: its layers, its rank, and what it has learned.

Any file that the pipeline's own loader reads. What it adds to weights is taken up with its scale,
so that alpha is the rank; a layer of a smaller rank than others gets room up to theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SpecError
from ...input_files import fault
from ...models import lora_loading
from ...spec.lora_refs import LoraRef
from . import lora_adapter

LOADED = "lora0"  # what `lora_loading` calls the first of its files


def start_files(path: str, number: int) -> tuple[Path, ...]:
    """A file for each of so many networks: a second expert's is called NAME_2 beside the first's.

    Raises `SpecError` for one that is not there.
    """
    first = Path(path)
    files = (first, first.with_name(f"{first.stem}_2{first.suffix}"))[:number]
    for file in files:
        why = fault(file) if first.suffix == ".safetensors" else "its name has another suffix"
        if why is not None:
            raise SpecError(f"start {file}: {why}; the path of a .safetensors file of a LoRA works")
    return files


def check(network: nn.Module, pipeline: str, file: Path, folder: str) -> None:
    """Raise `ModelError` or `SpecError` for a file that a training could not go on from."""
    kind = lora_adapter.pipeline_class(pipeline)
    lora_loading.check(network, kind, (ref(file),), Path(folder))
    state, left = lora_loading.converted(file, kind, getattr(network, "config", None))
    part = "unet." if any(key.startswith("unet.") for key in state) else "transformer."
    other = next((key for key in (*left, *state) if key in left or not key.startswith(part)), None)
    if other is not None:
        raise SpecError(
            f"start {file} changes {other}, which is not trained; a LoRA of the denoiser's "
            "low-rank factors alone works"
        )
    if not any(".lora_" in key for key in state):
        raise SpecError(f"start {file} changes nothing of this model; a LoRA made for it works")


def take_up(network: Any, pipeline: str, file: Path, *, seed: int) -> None:
    """Freeze a network and give its layers the factors of a file."""
    found = _factors(network, pipeline, file)
    rank = max(down.shape[0] for down, _ in found.values())
    lora_adapter.add(network, rank=rank, alpha=rank, targets=sorted(found), seed=seed)
    for name, (down, up) in found.items():
        layer = network.get_submodule(name)
        with torch.no_grad():
            layer.lora_A[lora_adapter.NAME].weight[: down.shape[0]] = down
            layer.lora_B[lora_adapter.NAME].weight[:, : down.shape[0]] = up


def _factors(network: Any, pipeline: str, file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up by the layers that a file changes, up times its scale, in float32."""
    lora_loading.add_to_denoiser(network, lora_adapter.pipeline_class(pipeline), (ref(file),))
    found = {}
    for name, layer in network.named_modules():
        if LOADED in getattr(layer, "lora_A", ()):
            up = layer.lora_B[LOADED].weight.detach().float() * layer.scaling[LOADED]
            found[name] = (layer.lora_A[LOADED].weight.detach().float().clone(), up)
    network.unload_lora()
    return found


def ref(file: Path) -> LoraRef:
    """A file as others name one, whatever is in its name."""
    return LoraRef(str(file), str(file))
