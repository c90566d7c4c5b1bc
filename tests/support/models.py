"""Real diffusers classes, tiny and random, each with its way to draw one band of a canvas.

A draw takes a band x [B, C, (T,) h, W] of the input and returns the same band of the result.
What a family must do itself (positions of its rows) is done here by adapters that read the
thread's rows, so that one model serves every rank.

Shape suffixes: B batch, C channels, T frames, H rows, W columns, S tokens, D features.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.layout import Band

NUM_TEXT = 7
Draw = Callable[[nn.Module, Tensor, Band], Tensor]


# ---- conditioning, the same on every rank


def _noise(*shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _text(dtype: torch.dtype) -> Tensor:
    return _noise(1, NUM_TEXT, 24, dtype=dtype)


def _pooled(dtype: torch.dtype) -> Tensor:
    return _noise(1, 12, dtype=dtype)


def _timestep(dtype: torch.dtype) -> Tensor:
    return torch.tensor([500.0], dtype=dtype)


# ---- positions of a thread's rows


class _Rows(threading.local):
    """The latent rows that this thread draws, of how many."""

    band = Band(0, 0)
    height = 0


_rows = _Rows()


def positioned(draw: Draw, height: int) -> Draw:
    """Draws while adapters read which rows these are."""

    def drawn(model: nn.Module, x: Tensor, band: Band) -> Tensor:
        _rows.band, _rows.height = band, height
        return draw(model, x, band)

    return drawn


def _own(table: Tensor, dim: int) -> Tensor:
    """This thread's rows of a table over the whole canvas."""
    rows = _rows.band.scaled(Fraction(table.shape[dim], _rows.height))
    return table.narrow(dim, rows.start, rows.rows)


# ---- autoencoders


def autoencoder() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16, 32),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def wan_autoencoder() -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def decode(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return model.decode(x).sample


def encode(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return model.encode(x).latent_dist.mean


# ---- UNets


def unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=24,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def rau_net() -> nn.Module:
    """HiDiffusion's geometry: the downsampler strides by 4 and dilates, the upsampler undoes it."""
    model = unet()
    for name, layer in model.named_modules():
        if name.endswith("downsamplers.0.conv"):
            layer.stride, layer.padding, layer.dilation = (4, 4), (2, 2), (2, 2)
        elif name.startswith("down_blocks.0.resnets") and name.endswith(("conv1", "conv2")):
            layer.padding, layer.dilation = (2, 2), (2, 2)
        elif name.endswith("upsamplers.0"):
            layer.forward = functools.partial(_upsample_by_4, layer)
    return model


def _upsample_by_4(layer: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return layer.conv(F.interpolate(x, scale_factor=4.0, mode="nearest"))


def denoise_unet(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return model(x, _timestep(x.dtype), _text(x.dtype)).sample


# ---- transformers


def flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=24,
        pooled_projection_dim=12,
        axes_dims_rope=(4, 6, 6),
    )


def denoise_flux(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return _as_map(
        model(
            hidden_states=_as_tokens(x),
            encoder_hidden_states=_text(x.dtype),
            pooled_projections=_pooled(x.dtype),
            timestep=_timestep(x.dtype) / 1000,
            img_ids=_flux_ids(band, x),
            txt_ids=torch.zeros(NUM_TEXT, 3, dtype=x.dtype),
        ).sample,
        x,
    )


def _flux_ids(band: Band, x: Tensor) -> Tensor:
    rows = torch.arange(band.start // 2, band.stop // 2, dtype=x.dtype)
    columns = torch.arange(x.shape[-1] // 2, dtype=x.dtype)
    zero = torch.zeros(1, dtype=x.dtype)
    return torch.cartesian_prod(zero, rows, columns)


def _as_tokens(x_BCHW: Tensor) -> Tensor:
    """2x2 patches in raster order, [B, S, 4 C]."""
    return F.pixel_unshuffle(x_BCHW, 2).flatten(2).transpose(1, 2)


def _as_map(x_BSD: Tensor, like: Tensor) -> Tensor:
    x = x_BSD.transpose(1, 2).unflatten(2, (like.shape[-2] // 2, like.shape[-1] // 2))
    return F.pixel_shuffle(x, 2)


def sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=12,
        out_channels=4,
        pos_embed_max_size=16,
    )
    embed = model.pos_embed
    cropped = embed.cropped_pos_embed

    def of_rows(height: int, width: int) -> Tensor:
        whole = cropped(_rows.height, width).unflatten(1, (_rows.height // 2, -1))
        return _own(whole, 1).flatten(1, 2)

    embed.cropped_pos_embed = of_rows
    return model


def denoise_sd3(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=_text(x.dtype),
        pooled_projections=_pooled(x.dtype),
        timestep=_timestep(x.dtype),
    ).sample


def qwen() -> nn.Module:
    from diffusers import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 6, 6),
    )
    forward = model.pos_embed.forward

    def of_rows(shapes: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        frames, _, width = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
        image, text = forward([[(frames, _rows.height // 2, width)]], *args, **kwargs)
        return _own(image.unflatten(0, (_rows.height // 2, -1)), 0).flatten(0, 1), text

    model.pos_embed.forward = of_rows
    return model


def denoise_qwen(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return _as_map(
        model(
            hidden_states=_as_tokens(x),
            encoder_hidden_states=_text(x.dtype),
            encoder_hidden_states_mask=None,
            timestep=_timestep(x.dtype) / 1000,
            img_shapes=[[(1, x.shape[-2] // 2, x.shape[-1] // 2)]],
        ).sample,
        x,
    )


def wan() -> nn.Module:
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    )
    forward = model.rope.forward

    def of_rows(x: Tensor) -> tuple[Tensor, ...]:
        grid = (x.shape[2], _rows.height // 2, x.shape[-1] // 2)
        whole = forward(x.new_empty((*x.shape[:3], _rows.height, x.shape[-1])))
        return tuple(_own(t.unflatten(1, grid), 2).flatten(1, 3) for t in whole)

    model.rope.forward = of_rows
    return model


def denoise_wan(model: nn.Module, x: Tensor, band: Band) -> Tensor:
    return model(
        hidden_states=x, timestep=_timestep(x.dtype), encoder_hidden_states=_text(x.dtype)
    ).sample
