"""Tokenizers with tiny vocabularies and text encoders of a few thousand weights."""

from __future__ import annotations

import json
from typing import Any

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'"
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# What byte pairs are learnt from: enough that a chat's frame is a few dozen tokens.
CORPUS = (
    "system user assistant Describe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background: a red sun over blue "
    "mountains at dusk, a grey moon, blurry"
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_CHAT = (
    "{% for message in messages %}[{{ message.role }}]{% for part in message.content %}"
    "{{ part.text }}{% endfor %}{% endfor %}"
)


def clip_tokenizer() -> CLIPTokenizer:
    """Letters, each with a form that ends a word; nothing is merged."""
    ends = [f"{letter}</w>" for letter in LETTERS]
    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *ends]
    return CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, [], model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    """Unigrams: a few whole words, else letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in ("red", "sun", "mountains")]
    pieces += [(letter, -4.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def clip(
    tokenizer: CLIPTokenizer, width: int, projected: bool = False, num_layers: int = 2
) -> nn.Module:
    """CLIP's text tower, with the projection of its pooled token or without."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5(tokenizer: T5Tokenizer, width: int) -> nn.Module:
    """T5's encoder."""
    return T5EncoderModel(T5Config(**_t5_options(tokenizer, width)))


def umt5(tokenizer: T5Tokenizer, width: int) -> nn.Module:
    """UMT5's encoder: T5's with relative positions in every layer."""
    return UMT5EncoderModel(UMT5Config(**_t5_options(tokenizer, width)))


def _t5_options(tokenizer: T5Tokenizer, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 1,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
    }


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Byte pairs with Qwen's chat marks and a chat template of the same frame."""
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator([CORPUS] * 4, vocab_size=420, show_progress=False)
    model = json.loads(pairs.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        extra_special_tokens=[START, STOP],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(
    tokenizer: Qwen2Tokenizer, width: int, num_layers: int, headless: bool = False
) -> nn.Module:
    """Qwen 3; `headless` is the bare model that Z-Image ships, else FLUX.2 klein's."""
    config = Qwen3Config(**_decoder_options(tokenizer, width, num_layers))
    return Qwen3Model(config) if headless else Qwen3ForCausalLM(config)


def qwen_vl(tokenizer: Qwen2Tokenizer, width: int) -> nn.Module:
    """Qwen 2.5-VL with a vision tower that text alone never wakes."""
    text = _decoder_options(tokenizer, width, 2)
    text.pop("head_dim")
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 2],
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision | {"out_hidden_size": width},
        tie_word_embeddings=False,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _decoder_options(tokenizer: Any, width: int, num_layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs with Mistral's marks; the real processor also takes pictures, and torchvision."""
    pairs = ByteLevelBPETokenizer()
    # Its pipeline puts a long text of its own before every prompt.
    pairs.train_from_iterator([CORPUS, SYSTEM_MESSAGE], vocab_size=600, show_progress=False)
    pairs.add_special_tokens(["<s>", "</s>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pairs._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
    )
    tokenizer.chat_template = MISTRAL_CHAT
    return tokenizer


def mistral3(tokenizer: PreTrainedTokenizerFast, width: int, num_layers: int) -> nn.Module:
    """Mistral 3 with a vision tower that text alone never wakes."""
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8
    )
    text = MistralConfig(**_decoder_options(tokenizer, width, num_layers))
    return Mistral3ForConditionalGeneration(Mistral3Config(vision_config=vision, text_config=text))
