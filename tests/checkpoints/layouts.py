"""One tiny random pipeline per checkpoint layout, as its publisher ships it."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from . import text
from .networks import causal_vae, flux2_vae, picture_vae, spread, unet

WIDTH = 16  # of every text encoder
DYNAMIC: dict[str, Any] = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "shift": 3.0,
}
# The noise of every UNet of the Stable Diffusion line.
SCALED: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


INPAINT: dict[str, Any] = {"in_channels": 9, "out_channels": 4}  # a mask, and what is around


def flux(guided: bool, fills: bool = False) -> DiffusionPipeline:
    """FLUX.1: dev is told a guidance scale, schnell is not and shifts nothing; Fill inpaints."""
    first, second = text.clip_tokenizer(), text.t5_tokenizer()
    schnell = {"use_dynamic_shifting": False, "shift": 1.0}
    kind = FluxFillPipeline if fills else FluxPipeline
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(**(DYNAMIC if guided else DYNAMIC | schnell)),
        vae=picture_vae(16, 0.3611, 0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=spread(text.clip(first, WIDTH)),
        tokenizer=first,
        text_encoder_2=spread(text.t5(second, WIDTH)),
        tokenizer_2=second,
        transformer=spread(
            FluxTransformer2DModel(
                in_channels=2 * 64 + 256 if fills else 64,
                out_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                guidance_embeds=guided,
                axes_dims_rope=(4, 6, 6),
            )
        ),
    )


def sd3(with_t5: bool = True, **options: Any) -> DiffusionPipeline:
    """Stable Diffusion 3; `options` of its transformer make it 3.5."""
    clip, five = text.clip_tokenizer(), text.t5_tokenizer()
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=picture_vae(16, 1.5305, 0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=spread(text.clip(clip, WIDTH, projected=True)),
        tokenizer=clip,
        text_encoder_2=spread(text.clip(clip, WIDTH, projected=True)),
        tokenizer_2=clip,
        text_encoder_3=spread(text.t5(five, 2 * WIDTH)) if with_t5 else None,
        tokenizer_3=five if with_t5 else None,
        transformer=spread(
            SD3Transformer2DModel(
                sample_size=16,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=2 * WIDTH,
                caption_projection_dim=32,
                pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=24,
                **options,
            )
        ),
    )


def sd35() -> DiffusionPipeline:
    """3.5 medium: normalised keys, a second attention in its first layers."""
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0,))


def qwen() -> DiffusionPipeline:
    """Qwen-Image."""
    tokenizer = text.qwen_tokenizer()
    shifts = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift": 1.0}
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(DYNAMIC | shifts), shift_terminal=0.02),
        vae=causal_vae(AutoencoderKLQwenImage),
        text_encoder=spread(text.qwen_vl(tokenizer, WIDTH)),
        tokenizer=tokenizer,
        transformer=spread(
            QwenImageTransformer2DModel(
                in_channels=64,
                out_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                axes_dims_rope=(4, 6, 6),
            )
        ),
    )


# Levels and blocks as published, whose layers methods name.
DEEP_XL: dict[str, Any] = {"layers_per_block": 2}
DEEP: dict[str, Any] = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def sdxl(turbo: bool = False, deep: bool = False, inpaints: bool = False) -> DiffusionPipeline:
    """SDXL with Euler steps, or the distilled one with ancestral steps to the last timestep."""
    clip = text.clip_tokenizer()
    ancestral = EulerAncestralDiscreteScheduler(**SCALED, timestep_spacing="trailing")
    euler = EulerDiscreteScheduler(**SCALED, steps_offset=1, timestep_spacing="leading")
    kind = StableDiffusionXLInpaintPipeline if inpaints else StableDiffusionXLPipeline
    return kind(
        scheduler=ancestral if turbo else euler,
        vae=picture_vae(4, 0.13025, None, force_upcast=False),
        text_encoder=spread(text.clip(clip, WIDTH)),
        tokenizer=clip,
        text_encoder_2=spread(text.clip(clip, WIDTH, projected=True)),
        tokenizer_2=clip,
        unet=unet(
            16,
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            transformer_layers_per_block=(1, 1, 2),
            use_linear_projection=True,
            **(DEEP_XL if deep else {}),
            **(INPAINT if inpaints else {}),
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def stable_diffusion(
    velocity: bool, deep: bool = False, inpaints: bool = False
) -> DiffusionPipeline:
    """Stable Diffusion 1.5 (noise, PLMS steps), or 2.1 (velocity, DDIM steps)."""
    clip = text.clip_tokenizer()
    shared: dict[str, Any] = SCALED | {"steps_offset": 1, "set_alpha_to_one": False}
    ddim = DDIMScheduler(**shared, prediction_type="v_prediction", clip_sample=False)
    kind = StableDiffusionInpaintPipeline if inpaints else StableDiffusionPipeline
    return kind(
        scheduler=ddim if velocity else PNDMScheduler(**shared, skip_prk_steps=True),
        vae=picture_vae(4, 0.18215, None),
        text_encoder=spread(text.clip(clip, WIDTH)),
        tokenizer=clip,
        unet=unet(
            16,
            WIDTH,
            use_linear_projection=velocity,
            **(DEEP if deep else {}),
            **(INPAINT if inpaints else {}),
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def flux2(dev: bool) -> DiffusionPipeline:
    """FLUX.2: dev reads Mistral and is told a guidance scale, klein reads Qwen and is not."""
    tokenizer = text.mistral_tokenizer() if dev else text.qwen_tokenizer()
    reader = text.mistral3(tokenizer, 8, 31) if dev else text.qwen3(tokenizer, 8, 28)
    pipeline = Flux2Pipeline if dev else Flux2KleinPipeline
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**DYNAMIC),
        vae=flux2_vae(),
        text_encoder=spread(reader, gain=0.5),
        tokenizer=tokenizer,
        transformer=spread(
            Flux2Transformer2DModel(
                in_channels=32,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                timestep_guidance_channels=16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=dev,
            )
        ),
    )


def zimage() -> DiffusionPipeline:
    """Z-Image."""
    tokenizer = text.qwen_tokenizer()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0, use_dynamic_shifting=False),
        vae=picture_vae(16, 0.3611, 0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=spread(text.qwen3(tokenizer, WIDTH, 2, headless=True)),
        tokenizer=tokenizer,
        transformer=spread(
            ZImageTransformer2DModel(
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=WIDTH,
                axes_dims=[4, 6, 6],
                axes_lens=[1024, 64, 64],
            )
        ),
    )
