"""Differences of whole weights in LoRA files, as trainers of Wan write them of norms and biases.

`NAME.diff` is added to the weight of the module NAME and `NAME.diff_b` to its bias, each times the
file's weight: W + s diff, as peft adds a low-rank change s up down. diffusers leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from . import quantization

SUFFIXES = (".diff", ".diff_b")
_PREFIX = re.compile(r"^(?:base_model\.model\.|diffusion_model\.|transformer(?:_2)?\.|unet\.)+")
# Their names in files that were made with the authors' own code.
_WAN = "WanTransformer3DModel"


def add(network: nn.Module, path: Path, differences: Mapping[str, Tensor], weight: float) -> None:
    """Add the differences of a file, times `weight`, to a network; raises `ModelError` as `named`.

    The sum is made in float32 and rounded once to the parameter's own type.
    """
    parameters = dict(network.named_parameters())
    for name, difference in named(network, path, differences).items():
        parameter = parameters[name]
        added = parameter.data.float() + weight * difference.to(parameter.device).float()
        parameter.data = added.to(parameter.dtype)


def named(network: nn.Module, path: Path, differences: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The differences by the names of the network's parameters.

    Raises `ModelError` for one that no parameter has the name or the shape of, or whose parameter
    is kept in so few bits that the sum would be lost in rounding.
    """
    parameters = dict(network.named_parameters())
    cast = {id(x) for layer in quantization.cast_layers(network) for x in layer.parameters()}
    found = {}
    for key, difference in differences.items():
        name = next((name for name in _names(key, network) if name in parameters), None)
        if name is None:
            raise ModelError(
                f"{path} changes {key}, which names no weight of {type(network).__name__}; "
                "a file without it works, or one of low-rank factors alone"
            )
        parameter = parameters[name]
        if type(parameter.data) is not Tensor or parameter.dtype.itemsize == 1:
            raise ModelError(_told(path, key, "is quantised"))
        if id(parameter) in cast:
            raise ModelError(_told(path, key, "is stored as float8"))
        if parameter.shape != difference.shape:
            raise ModelError(
                f"{path} was made for another model: {name} is {list(parameter.shape)}, its change "
                f"{list(difference.shape)}; a LoRA of this model's kind and size works"
            )
        found[name] = difference
    return found


def _told(path: Path, key: str, state: str) -> str:
    return (
        f"{path} changes {key}, a whole weight, which {state} here and would lose the change in "
        "rounding; leave out quantization and storage_dtype"
    )


def _names(key: str, network: nn.Module) -> list[str]:
    """What the parameter may be called that a tensor of a file changes."""
    module, _, suffix = _PREFIX.sub("", key).rpartition(".")
    name = f"{module}.{'weight' if suffix == 'diff' else 'bias'}"
    names = [name]
    if type(network).__name__ == _WAN:
        from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

        names += convert_wan_transformer_to_diffusers({name: torch.empty(0)})
    if key.startswith("lora_unet_"):
        plain = name.removeprefix("lora_unet_").replace(".", "_")
        names += [known for known, _ in network.named_parameters() if plain == _flat(known)]
    # Some are parameters themselves, as a table of shifts: of these there is no `.weight`.
    return [*names, *(each.removesuffix(".weight") for each in names)]


def _flat(name: str) -> str:
    return name.replace(".", "_")
