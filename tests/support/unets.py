"""Tiny U-Nets as the authors' vectors have them, prepared for windows and conv geometry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from frieze.cluster.bands import hook_convolutions, mark
from frieze.cluster.layout import Band
from frieze.renderer.extrapolation.convolutions import dilated_layers, raunet_sites
from frieze.renderer.extrapolation.unet_layouts import Model

from .shared import kept
from .vectors import about, parameter


@kept
def unet(kind: Model) -> tuple[nn.Module, Any]:
    """A tiny network whose weights come of their names, prepared; and its marked layers."""
    network = UNet2DConditionModel(**about(f"{kind}_like")).double().eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            made = parameter(name, tuple(weight.shape))
            is_norm = weight.ndim == 1 and not name.endswith("bias")
            weight.copy_(made + 1 if is_norm else made)
    samplers, pools = raunet_sites(kind)
    hook_convolutions(network, (*samplers, *dilated_layers(kind)), pools)
    # Where a band has as many tokens as the text, the guard cannot tell the two attentions apart.
    text = mark(network, lambda name, layer: name.endswith("attn2"), local=True)
    return network, (mark(network, lambda name, layer: name.endswith("attn1")), text)


def cuts(rows: int, unit: int) -> Iterator[tuple[Band, ...]]:
    """One band, and three unequal ones, or two, where `unit` goes into the rows often enough."""
    yield (Band(0, rows),)
    if rows % unit:
        return
    if rows // unit >= 4:
        yield (Band(0, unit), Band(unit, 3 * unit), Band(3 * unit, rows))
    elif rows // unit >= 2:
        yield (Band(0, unit), Band(unit, rows))
