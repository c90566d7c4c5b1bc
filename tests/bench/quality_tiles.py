"""What people do today instead of drawing large: enlarge, and refine in tiles of native size.

Every tile is the stock model's own picture-to-picture at low noise: of the demo model encoded,
noised to sigma, solved by Euler steps, decoded; of the demo's UNet as diffusers does it. Tiles
overlap by half and are blended in pixels.
Shape legend: N tiles, C channels, H rows, W columns (x pixels, z latent cells), S tokens.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frieze.renderer.checkpoints import checkpoint
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.families.flux import pack, unpack

Pixels = NDArray[np.uint8]
TILE = 256
SIGMA, STEPS = 0.3, 6
# Of the UNet: the part of so many steps that are taken, which diffusers calls the strength.
STRENGTH, ALL_STEPS = 0.3, 20
BATCH, TEXT_TOKENS = 8, 32


def enlarged(picture_HWC: Pixels, height: int, width: int) -> Pixels:
    """The picture at another size, bicubic."""
    image = Image.fromarray(picture_HWC)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Refiner:
    """A model's tiles: their side in pixels, and how it draws some of them again.

    `redrawn` takes tiles [N, 3, H, W] in [-1, 1], the prompt and the noise, and returns the same.
    """

    tile: int
    redrawn: Callable[[Tensor, str, torch.Generator], Tensor]


@functools.cache
def stock() -> Any:
    """The demo model as diffusers loads it."""
    from diffusers import FluxPipeline

    return _quiet(FluxPipeline.from_pretrained(checkpoint.find("demo"), dtype=torch.float32))


@functools.cache
def stock_unet() -> Any:
    """The demo's UNet as diffusers loads it, to draw pictures from pictures."""
    from diffusers import StableDiffusionImg2ImgPipeline

    folder = checkpoint.find("demo-unet")
    return _quiet(StableDiffusionImg2ImgPipeline.from_pretrained(folder, dtype=torch.float32))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def refined(picture_HWC: Pixels, prompt: str, seed: int, model: str = "demo") -> Pixels:
    """The picture with the detail that the model draws into its tiles."""
    refiner = REFINERS[model]
    tile = refiner.tile
    corners = tile_corners(*picture_HWC.shape[:2], tile)
    windows = [picture_HWC[y : y + tile, x : x + tile] for y, x in corners]
    x_NCHW = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float() / 127.5 - 1
    noise = torch.Generator().manual_seed(seed)
    drawn = [refiner.redrawn(part, prompt, noise).cpu() for part in x_NCHW.split(BATCH)]
    return blended(torch.cat(drawn), corners, picture_HWC.shape[0], picture_HWC.shape[1])


def _redrawn(x_NCHW: Tensor, prompt: str, noise: torch.Generator) -> Tensor:
    """Tiles after the demo model has solved them from sigma down to 0."""
    pipeline, number = stock(), len(x_NCHW)
    device = pipeline.transformer.device
    embeds, pooled, _ = pipeline.encode_prompt(
        prompt, prompt_2=None, device=device, max_sequence_length=TEXT_TOKENS
    )
    vae, x_NCHW = pipeline.vae, x_NCHW.to(device)
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


def _redrawn_by_unet(x_NCHW: Tensor, prompt: str, noise: torch.Generator) -> Tensor:
    """Tiles after the demo's UNet has drawn the last of its steps again."""
    pictures = stock_unet()(
        [prompt] * len(x_NCHW),
        image=x_NCHW / 2 + 0.5,
        strength=STRENGTH,
        num_inference_steps=ALL_STEPS,
        guidance_scale=describe("demo-unet").guidance.defaults["guidance_scale"],
        generator=noise,
        output_type="pt",
    ).images
    return 2 * pictures - 1


REFINERS: Mapping[str, Refiner] = {
    "demo": Refiner(TILE, _redrawn),
    "demo-unet": Refiner(128, _redrawn_by_unet),
}


def tile_corners(height: int, width: int, tile: int = TILE) -> list[tuple[int, int]]:
    """Tops and lefts of tiles that overlap by half, the last ones flush with the edge.

    Raises ValueError for a picture smaller than a tile.
    """
    if min(height, width) < tile:
        raise ValueError(f"a picture of {width} x {height} is smaller than a tile of {tile}")
    tops, lefts = (
        sorted({*range(0, length - tile, tile // 2), length - tile}) for length in (height, width)
    )
    return [(top, left) for top in tops for left in lefts]


def blended(tiles_NCHW: Tensor, corners: list[tuple[int, int]], height: int, width: int) -> Pixels:
    """Tiles in [-1, 1] as one uint8 picture, each fading out towards its edges."""
    side = tiles_NCHW.shape[-1]
    ramp = torch.arange(1, side // 2 + 1) / (side // 2)
    fade = torch.cat((ramp, ramp.flip(0)))
    fade_HW = fade[:, None] * fade
    total_CHW, weight_HW = torch.zeros(3, height, width), torch.zeros(height, width)
    for tile_CHW, (top, left) in zip(tiles_NCHW, corners, strict=True):
        rows, columns = slice(top, top + side), slice(left, left + side)
        total_CHW[:, rows, columns] += fade_HW * tile_CHW
        weight_HW[rows, columns] += fade_HW
    picture_CHW = (total_CHW / weight_HW / 2 + 0.5) * 255
    return picture_CHW.round().byte().permute(1, 2, 0).numpy()
