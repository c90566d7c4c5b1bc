"""What people do today instead of drawing large: enlarge, and refine in tiles of native size.

Every tile is the stock model's own picture-to-picture at low noise: encoded, noised to sigma,
solved by Euler steps, decoded; tiles overlap by half and are blended in pixels.
Shape legend: N tiles, C channels, H rows, W columns (x pixels, z latent cells), S tokens.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frieze.renderer.checkpoints import checkpoint
from frieze.renderer.families.flux import pack, unpack

Pixels = NDArray[np.uint8]
TILE = 256
SIGMA, STEPS = 0.3, 6
BATCH = 8


def enlarged(picture_HWC: Pixels, height: int, width: int) -> Pixels:
    """The picture at another size, bicubic."""
    image = Image.fromarray(picture_HWC)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


@functools.cache
def stock() -> Any:
    """The demo model as diffusers loads it."""
    from diffusers import FluxPipeline

    folder = checkpoint.find("demo")
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def refined(picture_HWC: Pixels, prompt: str, seed: int, text_tokens: int = 32) -> Pixels:
    """The picture with the detail that the model draws into its tiles."""
    pipeline = stock()
    device = pipeline.transformer.device
    embeds, pooled, _ = pipeline.encode_prompt(
        prompt, prompt_2=None, device=device, max_sequence_length=text_tokens
    )
    corners = tile_corners(*picture_HWC.shape[:2])
    windows = [picture_HWC[y : y + TILE, x : x + TILE] for y, x in corners]
    x_NCHW = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float() / 127.5 - 1
    noise = torch.Generator().manual_seed(seed)
    drawn = [
        _redrawn(pipeline, part.to(device), embeds, pooled, noise).cpu()
        for part in x_NCHW.split(BATCH)
    ]
    return blended(torch.cat(drawn), corners, picture_HWC.shape[0], picture_HWC.shape[1])


def _redrawn(
    pipeline: Any, x_NCHW: Tensor, embeds: Tensor, pooled: Tensor, noise: torch.Generator
) -> Tensor:
    """Tiles after the model has solved them from sigma down to 0."""
    vae, number = pipeline.vae, len(x_NCHW)
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    z_NCHW = (vae.encode(x_NCHW).latent_dist.mode() - shift) * scale
    size = z_NCHW.shape[-2:]
    drawn = torch.randn(z_NCHW.shape, generator=noise).to(z_NCHW)
    z_NSC = pack(torch.lerp(z_NCHW, drawn, SIGMA))
    ids = pipeline._prepare_latent_image_ids(1, size[0] // 2, size[1] // 2, "cpu", torch.float32)
    for now, then in itertools.pairwise(torch.linspace(SIGMA, 0, STEPS + 1).tolist()):
        velocity = pipeline.transformer(
            hidden_states=z_NSC,
            timestep=z_NSC.new_full((number,), now),
            pooled_projections=pooled.expand(number, -1),
            encoder_hidden_states=embeds.expand(number, -1, -1),
            txt_ids=ids.new_zeros(embeds.shape[1], 3).to(z_NSC),
            img_ids=ids.to(z_NSC),
            return_dict=False,
        )[0]
        z_NSC = z_NSC + (then - now) * velocity
    return vae.decode(unpack(z_NSC, size) / scale + shift).sample.clamp(-1, 1)


def tile_corners(height: int, width: int) -> list[tuple[int, int]]:
    """Tops and lefts of tiles that overlap by half, the last ones flush with the edge.

    Raises ValueError for a picture smaller than a tile.
    """
    if min(height, width) < TILE:
        raise ValueError(f"a picture of {width} x {height} is smaller than a tile of {TILE}")
    tops, lefts = (
        sorted({*range(0, length - TILE, TILE // 2), length - TILE}) for length in (height, width)
    )
    return [(top, left) for top in tops for left in lefts]


def blended(tiles_NCHW: Tensor, corners: list[tuple[int, int]], height: int, width: int) -> Pixels:
    """Tiles in [-1, 1] as one uint8 picture, each fading out towards its edges."""
    ramp = torch.arange(1, TILE // 2 + 1) / (TILE // 2)
    fade = torch.cat((ramp, ramp.flip(0)))
    fade_HW = fade[:, None] * fade
    total_CHW, weight_HW = torch.zeros(3, height, width), torch.zeros(height, width)
    for tile_CHW, (top, left) in zip(tiles_NCHW, corners, strict=True):
        rows, columns = slice(top, top + TILE), slice(left, left + TILE)
        total_CHW[:, rows, columns] += fade_HW * tile_CHW
        weight_HW[rows, columns] += fade_HW
    picture_CHW = (total_CHW / weight_HW / 2 + 0.5) * 255
    return picture_CHW.round().byte().permute(1, 2, 0).numpy()
