"""The demo models untrained: a FLUX-layout transformer, a UNet, text encoders, tokenizers."""

import json
from dataclasses import dataclass

import torch
from diffusers import EulerDiscreteScheduler, FluxTransformer2DModel, UNet2DConditionModel
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from . import scenes

TEXT_WIDTH = 64
WORDS = ("a", "sun", "moon", "over", "mountains", "at")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'"


@dataclass(frozen=True)
class Text:
    """Both text encoders and their tokenizers, named as in a FLUX folder."""

    tokenizer: CLIPTokenizer
    tokenizer_2: T5Tokenizer
    text_encoder: CLIPTextModel
    text_encoder_2: T5EncoderModel


def new_transformer() -> FluxTransformer2DModel:
    """Build the untrained transformer; its gates and last layer start at zero (adaLN-zero).

    Head size 72 = 8 + 32 + 32: of the row and column periods 6.3, 11.2, 19.9, 35.3 tokens the one
    that dominates 16 tokens, 19.9, lies inside the band (see specs of extrapolation methods).
    """
    model = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=72,
        num_attention_heads=3,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 32, 32),
    )
    zeroed = [model.proj_out, model.norm_out.linear]
    zeroed += [block.norm.linear for block in model.single_transformer_blocks]
    for block in model.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for linear in zeroed:
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return model


def new_unet(cells: int) -> UNet2DConditionModel:
    """Build the untrained UNet for the demo's latents: SDXL's three levels, no micro-conditioning.

    Two blocks a level, so that RAU-Net and FreeScale find the layers that they name in SDXL.
    """
    return UNet2DConditionModel(
        sample_size=cells,
        in_channels=16,
        out_channels=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        attention_head_dim=4,  # the number of heads
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
    )


def new_schedule() -> EulerDiscreteScheduler:
    """Build the UNet's schedule: SDXL's betas, a velocity predicted, drawn from the last step."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="linspace",
    )


def new_text() -> Text:
    """Build tokenizers that hold the grammar's words whole, and two tiny untrained encoders."""
    tokenizer, tokenizer_2 = _clip_tokenizer(), _t5_tokenizer()
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    t5 = T5Config(
        vocab_size=len(tokenizer_2),
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    return Text(tokenizer, tokenizer_2, CLIPTextModel(clip), T5EncoderModel(t5))


def embed(text: Text, prompts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Encode prompts as the FLUX pipeline does: pooled (B, 64) and tokens (B, length, 64)."""
    fixed = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    clip_ids = text.tokenizer(prompts, max_length=text.tokenizer.model_max_length, **fixed)
    t5_ids = text.tokenizer_2(prompts, max_length=length, **fixed)
    pooled_BC = text.text_encoder(clip_ids.input_ids).pooler_output
    return pooled_BC, text.text_encoder_2(t5_ids.input_ids)[0]


def _grammar() -> list[str]:
    return [*WORDS, *scenes.SUNS, *scenes.MOUNTAINS, *scenes.SKIES]


def _clip_tokenizer() -> CLIPTokenizer:
    """Byte-pair tokenizer whose merges spell every word of the grammar as one token."""
    bpe = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [f"{letter}</w>" for letter in LETTERS]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *ends],
        initial_alphabet=list(LETTERS),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(_grammar(), trainer)
    model = json.loads(bpe.model.__getstate__())
    merges = [
        tuple(merge.split()) if isinstance(merge, str) else tuple(merge)
        for merge in model["merges"]
    ]
    return CLIPTokenizer(model["vocab"], merges, model_max_length=77)


def _t5_tokenizer() -> T5Tokenizer:
    """Unigram tokenizer with the grammar's words and single letters as pieces."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in _grammar()]
    pieces += [(letter, -4.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
