"""Tiny ControlNets made of the tiny networks that they guide, strong enough to see."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel

from .stock import load


def build_controlnet(checkpoint: Path, folder: Path) -> Path:
    """A ControlNet of a U-Net; its folder. What starts at zero is drawn from a fixed seed."""
    network = ControlNetModel.from_unet(load(checkpoint, {}).unet)
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        if not parameter.any():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
    network.save_pretrained(folder)
    return folder
