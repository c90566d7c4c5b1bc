"""LoRA files (low-rank changes of weights, arXiv 2106.09685): what they change, whether they fit.

A LoRA adds up down to a weight W [out, in, ...]: down is [rank, in, ...], up [out, rank, ...].
Files name what they change as diffusers does, with dots between modules, or as trainers such as
kohya's do, in names of their own. Only headers are read here; `loading` applies the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, shown
from ..input_files import fault
from ..spec.lora_refs import LoraRef
from . import weight_files
from .configs import read_json

if TYPE_CHECKING:
    from .facts import ModelFacts

Shapes = Mapping[str, tuple[int, ...]]

DENOISERS = ("transformer", "unet")
# What only the named networks' modules are called, in any of the ways that files name them.
SIGNS = {
    "FLUX": (
        r"double_blocks|single_blocks|single_transformer_blocks",
        ("FluxTransformer2DModel", "Flux2Transformer2DModel"),
    ),
    "Stable Diffusion's UNet": (
        r"(down|up|input|output)_blocks[._]\d|(mid|middle)_block[._]",
        ("UNet2DConditionModel",),
    ),
    "Wan": (
        r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn[12]|ffn)",
        ("WanTransformer3DModel",),
    ),
    "Qwen-Image": (r"transformer_blocks[._]\d+[._](img|txt)_m", ("QwenImageTransformer2DModel",)),
    "Stable Diffusion 3": (r"joint_blocks", ("SD3Transformer2DModel",)),
    "Z-Image": (
        r"(^|[._])(layers|noise_refiner|context_refiner)[._]\d+[._](attention|feed_forward)",
        ("ZImageTransformer2DModel",),
    ),
}
# Where weights are found by kohya's names: a module's path with underscores for dots.
TRAINERS = "lora_unet"
# module, then which of the two factors
FACTOR = re.compile(r"^(.+?)\.(?:lora(?:_linear_layer)?[._])(A|B|down|up)\.(?:\w+\.)?weight$")


def identity(loras: Iterable[LoraRef]) -> list[dict[str, Any]]:
    """What decides a picture about its LoRAs, for the store's fingerprint: JSON values."""
    return [{"digest": _digest(lora.path), "weight": lora.weight} for lora in loras]


def summary(loras: Iterable[LoraRef]) -> list[str]:
    """For people: each file's name, its weight, and how many layers it changes, all or none."""
    lines = []
    for each in loras:
        keys = shapes(each.path)
        down = (key for key in keys if re.search(r"lora_(A|down)|lora\.down", key))
        layers = {re.split(r"\.lora|_lora\.", key)[0] for key in down}
        whole = sum(key.endswith((".diff", ".diff_b")) for key in keys)
        more = f", {whole} weights by their differences" if whole else ""
        lines.append(f"{shown(each.path.name)} at {each.weight:g}: {len(layers)} layers{more}")
    return lines


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(loras: Iterable[LoraRef], facts: ModelFacts) -> None:
    """Whether each file changes weights that the model has, in their shapes.

    Raises `ModelError` that names the file, what it was made for where its names tell, and the
    model. Names that only a trainer knows are compared with the kind of network alone.
    """
    asked = tuple(loras)
    if not asked:
        return
    weights, kinds = _networks(Path(facts.folder))
    for lora in asked:
        _check_one(lora, facts, shapes(lora.path), weights, kinds)


def check_converted(path: Path, changes: Shapes, folder: Path) -> None:
    """The same of a file whose names diffusers made its own: names of trainers are known now.

    Raises `ModelError` that names the layer and both shapes.
    """
    weights, _ = _networks(folder)
    for key, shape in changes.items():
        fault = _fault(key, shape, weights) if key.partition(".")[0] in weights else None
        if fault:
            raise ModelError(f"{path} was made for another model than {folder}: {fault}")


def _networks(folder: Path) -> tuple[dict[str, Shapes], set[str]]:
    """Shapes of a model's weights, by network or by trainers' names, and the networks' classes."""
    parts = {name: folder / name for name in DENOISERS if (folder / name).is_dir()}
    networks = {name: read_json(part / "config.json") for name, part in parts.items()}
    # A quantised checkpoint packs its weights: their shapes on disk say nothing.
    plain = {n: p for n, p in parts.items() if "quantization_config" not in networks[n]}
    weights: dict[str, Shapes] = {name: _weights(part) for name, part in plain.items()}
    named = (item for known in list(weights.values()) for item in known.items())
    weights[TRAINERS] = {key.replace(".", "_"): shape for key, shape in named}
    return weights, {str(config.get("_class_name")) for config in networks.values()}


def _check_one(
    lora: LoraRef,
    facts: ModelFacts,
    changes: Shapes,
    weights: Mapping[str, Shapes],
    kinds: set[str],
) -> None:
    if not any("lora" in key or "lokr" in key for key in changes):
        raise ModelError(f"{lora.path} is no LoRA: none of its {len(changes)} tensors is named so")
    if any("dora_scale" in key for key in changes):
        raise ModelError(f"{lora.path} is a DoRA, which diffusers cannot apply; a LoRA works")
    maker = _maker(changes)
    if maker and not kinds & set(SIGNS[maker][1]):
        raise ModelError(f"{lora.path} was made for {maker}; {facts.folder} is {facts.family}")
    for key, shape in changes.items():
        fault = _fault(key, shape, weights)
        if fault:
            raise ModelError(
                f"{lora.path} was made for another model: {fault}; "
                f"{facts.folder} is {facts.family}, a LoRA of its kind and size works"
            )


def _maker(changes: Shapes) -> str | None:
    for name, (sign, _) in SIGNS.items():
        if any(re.search(sign, key) for key in changes if not key.startswith(("text", "lora_te"))):
            return name
    return None


def _fault(key: str, shape: tuple[int, ...], weights: Mapping[str, Shapes]) -> str | None:
    """What is wrong with one factor, where its name is the module's path in diffusers."""
    named = FACTOR.match(key)
    if named is None:
        return None
    module, factor = named.groups()
    part, _, path = module.partition(".")
    if part in weights:
        whole = weights[part].get(f"{path}.weight")
    else:
        whole = weights[TRAINERS].get(f"{module.removeprefix('lora_unet_')}_weight")
        if whole is None:
            return None
    if whole is None:
        return f"there is no {module}"
    if min(len(whole), len(shape)) < 2:
        return f"{module} is {list(whole)}, its change {list(shape)} ({factor}), which is no matrix"
    ours, dim = (1, 1) if factor in ("A", "down") else (0, 0)
    # diffusers pads a LoRA for plain pictures where the model takes more channels.
    fits = shape[dim] <= whole[ours] if module.endswith("x_embedder") else shape[dim] == whole[ours]
    return None if fits else f"{module} is {list(whole)}, its change {list(shape)} ({factor})"


def _weights(part: Path) -> dict[str, tuple[int, ...]]:
    files = sorted(part.glob("*.safetensors"))
    return {key: shape for file in files for key, shape in weight_files.shapes(file).items()}


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LoRA file's tensors, from its header; raises `ModelError`."""
    if (why := fault(file)) is not None:
        raise ModelError(f"no LoRA file: {why}; the path of a .safetensors file works")
    if file.suffix != ".safetensors" and file.suffix not in weight_files.PICKLES:
        raise ModelError(f"{file} is no LoRA; the path of a .safetensors file works")
    if file.suffix != ".safetensors":
        raise ModelError(f"{file} may run code when it is read; convert it to .safetensors")
    return weight_files.shapes(file)
