"""Parts of tiny checkpoints, loaded as the renderer loads them, each with a way to run it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from frieze.renderer.models import loading
from frieze.renderer.spec.render_spec import RenderSpec


def facts(folder: Path) -> Any:
    return SimpleNamespace(folder=str(folder), family=folder.name)


def spec(**fields: Any) -> RenderSpec:
    """What parts of a model are loaded for."""
    return RenderSpec(**fields)


class Layout:
    """A denoiser's class, its place, its pipeline, and a way to run it."""

    def __init__(self, name: str) -> None:
        import diffusers

        self.name = name
        self.part = "unet" if name.startswith("sd") else "transformer"
        kind, pipeline = {
            "flux": ("FluxTransformer2DModel", "FluxPipeline"),
            "sd15": ("UNet2DConditionModel", "StableDiffusionPipeline"),
            "sdxl": ("UNet2DConditionModel", "StableDiffusionXLPipeline"),
        }[name]
        self.kind, self.pipeline = getattr(diffusers, kind), getattr(diffusers, pipeline)

    def load(self, folder: Path, asked: Any) -> Any:
        module = loading.component(self.kind, facts(folder), self.part, asked, denoiser=True)
        loading.add_loras(module, self.pipeline, facts(folder), asked)
        return module

    def run(self, module: Any) -> Tensor:
        generator = torch.Generator().manual_seed(5)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(module.dtype)

        config = module.config
        if self.part == "unet":
            text = noise(1, 7, config.cross_attention_dim)
            return module(noise(1, config.in_channels, 8, 8), 500.0, text).sample.float()
        ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0))
        return module(
            hidden_states=noise(1, 16, config.in_channels),
            encoder_hidden_states=noise(1, 7, config.joint_attention_dim),
            pooled_projections=noise(1, config.pooled_projection_dim),
            timestep=noise(1),
            guidance=noise(1),
            img_ids=ids,
            txt_ids=torch.zeros(7, 3),
        ).sample.float()


def error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
