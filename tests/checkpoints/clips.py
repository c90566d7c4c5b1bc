"""Wan in the layouts it is published in: 2.1 and 2.2's two experts, from text or a first frame."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from . import text
from .networks import causal_vae, spread

WIDTH = 16


def wan(experts: bool = False, first_frame: bool = False) -> DiffusionPipeline:
    """Wan 2.1, or with two `experts` the layout of 2.2 A14B; `first_frame` is image to video."""
    tokenizer = text.t5_tokenizer()
    sees = first_frame and not experts  # 2.1 also shows the picture to CLIP
    parts: dict[str, Any] = {
        "scheduler": _scheduler(),
        "vae": causal_vae(AutoencoderKLWan),
        "text_encoder": spread(text.umt5(tokenizer, WIDTH)),
        "tokenizer": tokenizer,
        "transformer": _transformer(first_frame, sees),
    }
    if experts:
        parts |= {"transformer_2": _transformer(first_frame, sees), "boundary_ratio": 0.875}
    if sees:
        parts |= {"image_encoder": _vision(), "image_processor": _processor()}
    return (WanImageToVideoPipeline if first_frame else WanPipeline)(**parts)


def wan_small() -> DiffusionPipeline:
    """Wan 2.2 TI2V: 16 pixels a latent, a residual autoencoder, a timestep for every token."""
    tokenizer = text.t5_tokenizer()
    patched = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    return WanPipeline(
        scheduler=_scheduler(),
        vae=causal_vae(AutoencoderKLWan, is_residual=True, **patched),
        text_encoder=spread(text.umt5(tokenizer, WIDTH)),
        tokenizer=tokenizer,
        transformer=_transformer(first_frame=False, sees=False),
        expand_timesteps=True,
    )


def _scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=3.0,
    )


def _transformer(first_frame: bool, sees: bool) -> nn.Module:
    return spread(
        WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            # The latents, and of a first frame its latents and 4 channels that say where it is.
            in_channels=36 if first_frame else 16,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            image_dim=WIDTH if sees else None,
            added_kv_proj_dim=32 if sees else None,
            rope_max_seq_len=64,
        )
    )


def _vision() -> nn.Module:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return spread(CLIPVisionModel(config))


def _processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
