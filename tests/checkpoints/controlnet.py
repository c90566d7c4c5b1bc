"""Tiny ControlNets made of the tiny networks that they guide, strong enough to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, FluxControlNetModel
from torch import nn

from .networks import spread
from .stock import load


def build_controlnet(checkpoint: Path, folder: Path, seed: int = 5, **options: Any) -> Path:
    """A ControlNet of a model; its folder. What starts at zero is drawn from the seed.

    `options` are of its config, where it is FLUX's.
    """
    pipeline = load(checkpoint, {})
    if hasattr(pipeline, "unet"):
        network: nn.Module = ControlNetModel.from_unet(pipeline.unet)
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
        torch.manual_seed(seed)
        spread(network.controlnet_cond_embedding, gain=2.0)  # else it hardly sees the picture
    else:
        known = dict(pipeline.transformer.config) | {"num_layers": 1, "num_single_layers": 1}
        torch.manual_seed(seed)
        network = spread(FluxControlNetModel.from_config(known | options))
        if network.input_hint_block is not None:
            spread(network.input_hint_block, gain=2.0)
    network.save_pretrained(folder)
    return folder
