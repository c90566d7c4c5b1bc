"""Autoencoders and denoisers of real classes, tiny, with weights that say something.

Fresh diffusers modules are nearly silent (small or zero last layers), which would hide mistakes.
`spread` draws every weight so that each layer passes its input on at the same strength, and
`calibrated` scales an autoencoder's ends so that pixels stay mostly in [-1, 1] and latents near 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    UNet2DConditionModel,
)
from torch import nn

PIXELS = 0.35  # standard deviation of decoded pixels
CHANNELS = (8, 8, 16, 16)


def spread(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw every parameter: matrices by fan-in times `gain`, norms near 1, biases near 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gamma", "norm.weight")) or (
                "weight" in name and parameter.ndim == 1
            ):
                parameter.normal_(mean=1.0, std=0.2)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.2)
            else:
                parameter.normal_(std=gain / math.sqrt(parameter[0].numel()))
    return model.eval()


def calibrated(vae: nn.Module, latents: torch.Tensor, pixels: torch.Tensor) -> nn.Module:
    """Scale an autoencoder's last layers: typical latents give typical pixels and the reverse."""
    with torch.no_grad():
        ends = ((vae.encoder.conv_out, _encode, pixels), (vae.decoder.conv_out, _decode, latents))
        for conv, run, given in ends:
            conv.bias.zero_()
            wanted = latents.std().item() if run is _encode else PIXELS
            conv.weight.mul_(wanted / _loud(run(vae, given)))
    return vae


def _encode(vae: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return vae.encode(pixels).latent_dist.mode()


def _decode(vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    layer = vae.decoder.conv_out
    heard: list[torch.Tensor] = []
    # Causal autoencoders clamp what they return: listen to the layer itself.
    hook = layer.register_forward_hook(lambda module, args, result: heard.append(result))
    vae.decode(latents)
    hook.remove()
    return torch.cat([part.flatten() for part in heard])


def _loud(x: torch.Tensor) -> float:
    return max(x.std().item(), 1e-6)


def picture_vae(channels: int, scaling: float, shift: float | None, **options: Any) -> nn.Module:
    """AutoencoderKL, 8 pixels a latent; `channels` 4 for UNets, 16 for transformers."""
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=scaling,
        shift_factor=shift,
        sample_size=64,
        **options,
    )
    latents = torch.randn(1, channels, 8, 8) / scaling
    return calibrated(spread(vae), latents, torch.rand(1, 3, 64, 64) * 2 - 1)


def flux2_vae() -> nn.Module:
    """AutoencoderKLFlux2 with statistics that are not 0 and 1."""
    vae = AutoencoderKLFlux2(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=8,
        sample_size=64,
    )
    vae.bn.running_mean.normal_(std=0.3)
    vae.bn.running_var.uniform_(1.0, 3.0)
    return calibrated(spread(vae), 1.5 * torch.randn(1, 8, 8, 8), torch.rand(1, 3, 64, 64) * 2 - 1)


def causal_vae(
    kind: type[AutoencoderKLWan] | type[AutoencoderKLQwenImage], **options: Any
) -> nn.Module:
    """Wan's autoencoder or Qwen-Image's: 8 pixels and 4 frames a latent, trained statistics."""
    vae = kind(base_dim=4, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1, **options)
    latents, pixels = 3 * torch.randn(1, 16, 1, 8, 8), torch.rand(1, 3, 1, 64, 64) * 2 - 1
    return calibrated(spread(vae), latents, pixels)


def unet(sample_size: int, context: int, **options: Any) -> nn.Module:
    """UNet2DConditionModel whose coarsest level attends, 4 latent cells a coarse one."""
    defaults = {
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    settings = defaults | {"sample_size": sample_size, "cross_attention_dim": context} | options
    return spread(UNet2DConditionModel(**settings))
