"""LoRA files made as diffusers' users get them: PEFT layers saved by the pipeline itself."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict

from .stock import load

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def build_lora(checkpoint: Path, folder: Path) -> Path:
    """A LoRA of rank 2 on every attention of the denoiser, strong enough to see; its file."""
    pipeline = load(checkpoint, {})
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    network = getattr(pipeline, part)
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=list(TARGETS)))
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise / parameter.shape[1] ** 0.5)
    layers = {f"{part}_lora_layers": get_peft_model_state_dict(network)}
    accepted = inspect.signature(pipeline.save_lora_weights).parameters
    assert set(layers) <= set(accepted)
    pipeline.save_lora_weights(folder, **layers)
    return next(folder.glob("*.safetensors"))
