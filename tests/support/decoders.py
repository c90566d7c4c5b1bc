"""Tiny decoders of any size, which draw something at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.shipped import SHIPPED

TINY: dict[str, Any] = {
    "latent_channels": 4,
    "width": 32,
    "depth": 1,
    "trunk_depth": 1,
    "heads": 2,
    "pixel_widths": (8, 16),
    "directions": 16,
    "pooled": 2,
    "num_steps": 1,
}


def decoder(dtype: torch.dtype = torch.float64, **options: Any) -> InfGenDecoder:
    """One whose last layer and modulations are not zero, as they would be at first."""
    torch.manual_seed(0)
    made = InfGenDecoder(**TINY | options).to(dtype).eval()
    torch.nn.init.normal_(made.conv_out.weight, std=0.3)
    torch.nn.init.normal_(made.mask_token)
    for layer in made.modules():
        if type(layer).__name__ == "Modulation":
            torch.nn.init.normal_(layer.linear.weight, std=0.1)
    return made


def saved(folder: Path, model: Path = SHIPPED["demo"], **options: Any) -> Path:
    """The folder of one for the latents of a model."""
    vae = json.loads((model / "vae" / "config.json").read_text(encoding="utf-8"))
    latents = {
        "latent_channels": describe(str(model)).latent.channels,
        "scaling_factor": vae.get("scaling_factor", 1.0),
        "shift_factor": vae.get("shift_factor") or 0.0,
    }
    decoder(torch.float32, **latents | options).save_pretrained(folder)
    return folder


def plain(folder: Path, **options: Any) -> Path:
    """The folder of one that adds nothing, as at the start of a training."""
    saved(folder, **options)
    network = InfGenDecoder.from_pretrained(folder)
    for weight in network.conv_out.parameters():
        weight.data.zero_()
    network.save_pretrained(folder)
    return folder
