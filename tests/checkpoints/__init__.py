"""Tiny random checkpoints on disk, one per layout, made with the real pipeline classes.

    from pathlib import Path
    from checkpoints import NAMES, build
    folder = build("flux", Path("/tmp/flux"))       # a diffusers folder, float32 safetensors
    FluxPipeline.from_pretrained(folder)

Every weight is drawn from a fixed seed, so that a name always means the same checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Pipeline class in model_index.json, by the name of the layout.
PIPELINES = {
    "flux": "FluxPipeline",
    "flux-schnell": "FluxPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3-no-t5": "StableDiffusion3Pipeline",
    "sd35": "StableDiffusion3Pipeline",
    "qwen": "QwenImagePipeline",
    "wan": "WanPipeline",
    "wan22": "WanPipeline",
    "wan22-small": "WanPipeline",
    "wan-i2v": "WanImageToVideoPipeline",
    "wan22-i2v": "WanImageToVideoPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-turbo": "StableDiffusionXLPipeline",
    "sd15": "StableDiffusionPipeline",
    "sd21": "StableDiffusionPipeline",
    "flux2": "Flux2KleinPipeline",
    "flux2-dev": "Flux2Pipeline",
    "zimage": "ZImagePipeline",
    "sd15-inpaint": "StableDiffusionInpaintPipeline",
    "sdxl-inpaint": "StableDiffusionXLInpaintPipeline",
    "flux-fill": "FluxFillPipeline",
}
NAMES = tuple(PIPELINES)
# U-Nets with as many levels and blocks as were published.
DEEP = ("sd15-deep", "sd21-deep", "sdxl-deep", "sdxl-turbo-deep")


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` into `folder`, which is returned."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers, against new numpy
        torch.manual_seed(0)
        _makers()[name]().save_pretrained(folder, safe_serialization=True)
    return folder


def _makers() -> dict[str, Callable[[], Any]]:
    # Here: importing every pipeline takes seconds.
    from . import clips, layouts

    return {
        "flux": lambda: layouts.flux(guided=True),
        "flux-schnell": lambda: layouts.flux(guided=False),
        "sd3": layouts.sd3,
        "sd3-no-t5": lambda: layouts.sd3(with_t5=False),
        "sd35": layouts.sd35,
        "qwen": layouts.qwen,
        "wan": clips.wan,
        "wan22": lambda: clips.wan(experts=True),
        "wan22-small": clips.wan_small,
        "wan-i2v": lambda: clips.wan(first_frame=True),
        "wan22-i2v": lambda: clips.wan(experts=True, first_frame=True),
        "sdxl": layouts.sdxl,
        "sdxl-turbo": lambda: layouts.sdxl(turbo=True),
        "sd15": lambda: layouts.stable_diffusion(velocity=False),
        "sd21": lambda: layouts.stable_diffusion(velocity=True),
        "sd15-deep": lambda: layouts.stable_diffusion(velocity=False, deep=True),
        "sd21-deep": lambda: layouts.stable_diffusion(velocity=True, deep=True),
        "sdxl-deep": lambda: layouts.sdxl(deep=True),
        "sdxl-turbo-deep": lambda: layouts.sdxl(turbo=True, deep=True),
        "flux2": lambda: layouts.flux2(dev=False),
        "flux2-dev": lambda: layouts.flux2(dev=True),
        "zimage": layouts.zimage,
        "sd15-inpaint": lambda: layouts.stable_diffusion(velocity=False, inpaints=True),
        "sdxl-inpaint": lambda: layouts.sdxl(inpaints=True),
        "flux-fill": lambda: layouts.flux(guided=True, fills=True),
    }
