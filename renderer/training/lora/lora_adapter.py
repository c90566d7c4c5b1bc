"""LoRAs that are trained: put on a network by peft, and written as diffusers' pipelines read them.

A LoRA adds alpha / rank times up down to a weight (arXiv 2106.09685). Its factors stay in float32
whatever the network's precision is.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import SpecError, shown
from ...files.atomic import finish
from ...files.scratch import scratch

if TYPE_CHECKING:
    from peft import LoraConfig

    from ...models.family import Model

NAME = "default"  # of the adapter on a network
# Layers that peft gives factors to, of those that denoisers are made of.
KINDS = (nn.Linear, nn.Conv2d, nn.Conv3d)
MOST_NEAREST = 3


def denoisers(model: Model) -> tuple[nn.Module, ...]:
    """The networks of a model that draw: one, or an expert each for much and for little noise."""
    found: Any = model
    for name in ("transformer", "unet"):
        if hasattr(found, name):
            return (getattr(found, name),)
    return tuple(found.experts)


def pipeline_class(name: str) -> Any:
    """The class of a pipeline, which knows all formats of its family's LoRAs."""
    import diffusers

    return getattr(diffusers, name)


def check_targets(network: nn.Module, targets: Sequence[str]) -> None:
    """Raise `SpecError` for a target that means no layer, or one that takes no LoRA.

    A target is a layer's whole name or its end, as peft takes it.
    """
    layers = dict(network.named_modules())
    known = sorted(
        {end for name, layer in layers.items() if isinstance(layer, KINDS) for end in _ends(name)}
    )
    kind = type(network).__name__
    for target in targets:
        meant = [name for name in layers if name == target or name.endswith(f".{target}")]
        near = ", ".join(difflib.get_close_matches(target, known, MOST_NEAREST, cutoff=0.0))
        if not meant:
            raise SpecError(
                f"targets: no layer of {kind} is called {shown(target)}; the nearest are {near}"
            )
        other = next((name for name in meant if not isinstance(layers[name], KINDS)), None)
        if other is not None:
            what = type(layers[other]).__name__
            raise SpecError(
                f"targets: {shown(target)} means {other} of {kind}, a {what}, which takes no LoRA; "
                f"the nearest that do are {near}"
            )


def _ends(name: str) -> list[str]:
    """What a layer may be called: its last word, or as many as begin with one that is no number."""
    words = name.split(".")
    starts = [at for at in range(len(words)) if not words[at].isdigit()]
    return [".".join(words[at:]) for at in starts[-2:]]


def add(network: Any, *, rank: int, alpha: float, targets: Sequence[str], seed: int) -> None:
    """Freeze a network and give its layers factors, which change nothing yet.

    Down is random by the seed, up zero.
    """
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_adapter(_config(rank, alpha, targets), adapter_name=NAME)
    for factor in factors(network):
        factor.data = factor.data.float()


def factors(network: nn.Module) -> list[nn.Parameter]:
    """The factors of a network, which alone are trained."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def state(network: nn.Module) -> dict[str, Tensor]:
    """The factors by their names, as peft calls them."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(network, adapter_name=NAME))


def load_state(network: nn.Module, states: dict[str, Tensor]) -> None:
    """Take up what `state` gave."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(network, states, adapter_name=NAME)


def save(network: nn.Module, pipeline: str, path: Path) -> None:
    """Write the factors into a file that the pipeline's `load_lora_weights` reads.

    The file's alpha is its rank, for up is written times alpha / rank: programs that know no alpha
    read the same. It gets its name when it is whole.
    """
    import diffusers

    told: Any = network
    config = told.peft_config[NAME]
    scale = config.lora_alpha / config.r
    layers = {
        name: (value * scale if ".lora_B." in name else value).detach().cpu().contiguous()
        for name, value in state(network).items()
    }
    part = "unet" if isinstance(network, diffusers.UNet2DConditionModel) else "transformer"
    plain = _config(config.r, config.r, sorted(config.target_modules)).to_dict()
    plain["target_modules"] = sorted(config.target_modules)  # a set: the same bytes every time
    with scratch(path.parent, "lora") as folder:
        getattr(diffusers, pipeline).save_lora_weights(
            folder,
            weight_name=path.name,
            **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": plain},
        )
        finish(folder / path.name, path)


def _config(rank: int, alpha: float, targets: Sequence[str]) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))  # type: ignore[arg-type]
