"""Checkpoints of random weights as wide as published models are, for timings alone.

What a method adds to a step grows with its tokens and its channels, and the step itself with the
square of the channels: on the narrow demo model the same work is a larger part.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
)

from checkpoints import build
from frieze.renderer.checkpoints.checkpoint import describe

CONFIGS = Path(__file__).resolve().parents[1] / "configs_full"


def wide(folder: Path) -> Path:
    """FLUX.1's width, heads and axes in one double and one single block, trained at 128 pixels."""
    return _like_flux(folder, 128, {"num_layers": 1, "num_single_layers": 1})


def flux(folder: Path, device: str) -> Path:
    """FLUX.1's width in two double and four single blocks, trained at 1024 pixels, bfloat16."""
    blocks = {"num_layers": 2, "num_single_layers": 4}
    return _like_flux(folder, 1024, blocks, device, torch.bfloat16)


def flux_whole(folder: Path, blocks: tuple[int, int], device: str, dtype: torch.dtype) -> Path:
    """FLUX.1's transformer, of so many double and single blocks, and its autoencoder, whole."""
    numbers = dict(zip(("num_layers", "num_single_layers"), blocks, strict=True))
    _like_flux(folder, 1024, numbers, device, dtype)
    published = json.loads((CONFIGS / "flux1.json").read_text(encoding="utf-8"))
    config = {name: x for name, x in published["vae/config.json"].items() if name[0] != "_"}
    return _saved(AutoencoderKL, config, folder, "vae", device, dtype)


def clip(folder: Path) -> Path:
    """Wan 2.1's layout in two blocks of 8 heads of 128 channels."""
    build("wan", folder)
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    ours = {name: value for name, value in config.items() if not name.startswith("_")}
    ours |= {"num_attention_heads": 8, "attention_head_dim": 128, "ffn_dim": 4096}
    return _saved(WanTransformer3DModel, ours, folder, "transformer")


def sdxl_tenth(folder: Path) -> Path:
    """SDXL's U-Net with its blocks, of a tenth of its channels, for a tenth of its tokens.

    Trained at 40 x 40 latent cells. Tokens to channels and the width of a head are SDXL's, so that
    attention is as large a part of a step.
    """
    build("sdxl-deep", folder)
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    ours = {name: value for name, value in config.items() if not name.startswith("_")}
    ours |= {
        "block_out_channels": (32, 64, 128),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (1, 1, 2),  # of heads, in diffusers
        "norm_num_groups": 16,
        "sample_size": 40,
    }
    return _saved(UNet2DConditionModel, ours, folder, "unet")


def _like_flux(
    folder: Path,
    side: int,
    blocks: dict[str, int],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The demo with a transformer of FLUX.1's width, heads and axes, trained at `side` pixels."""
    shutil.copytree(describe("demo").folder, folder)
    hints = json.loads((folder / "frieze.json").read_text(encoding="utf-8"))
    (folder / "frieze.json").write_text(json.dumps(hints | {"training_size": side}))
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    ours = {name: value for name, value in config.items() if not name.startswith("_")}
    ours |= {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    return _saved(FluxTransformer2DModel, ours | blocks, folder, "transformer", device, dtype)


def _saved(
    kind: Any,
    config: dict[str, Any],
    folder: Path,
    part: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The folder, one part of it replaced."""
    shutil.rmtree(folder / part)
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # in float32 first, it might not fit
    try:
        with torch.device(device):
            made = kind(**config)
    finally:
        torch.set_default_dtype(usual)
    made.to(dtype).save_pretrained(folder / part)
    return folder
