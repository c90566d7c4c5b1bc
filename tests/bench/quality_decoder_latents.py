"""Latents of 256-pixel demo pictures that every row of the decoder's benchmark enlarges, kept.

`drawn` are what the demo model draws for a seed, `encoded` what its autoencoder makes of the seed's
scene. Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench import quality_rows
from bench.quality_rows import NATIVE, Cell, Pixels, Row, Settings
from frieze.renderer import RenderSpec, render
from frieze.renderer.checkpoints import checkpoint
from frieze.renderer.demo import scenes
from frieze.renderer.store.store import Store

Source = Literal["drawn", "encoded"]
SOURCES: tuple[Source, ...] = ("drawn", "encoded")


@dataclass(frozen=True)
class Small:
    """Latents [1, C, H, W] as the denoiser scales them, and their exact decode in [-1, 1]."""

    z_1CHW: Tensor
    picture_13HW: Tensor

    @property
    def pixels(self) -> Pixels:
        """The decode as a picture."""
        return to_pixels(self.picture_13HW)


def small(work: Path, source: Source, seed: int, settings: Settings) -> Small:
    """Those of a seed, from WORK/latents or made and left there."""
    kept = work / "latents" / f"{source}-{settings.steps}-{settings.shift:g}-{seed:04}.npz"
    if not kept.exists():
        z_1CHW = encoded(seed) if source == "encoded" else drawn(native_spec(seed, settings))
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(".new.npz")
        np.savez(fresh, z=z_1CHW.numpy(), picture=decoded(z_1CHW).numpy())
        fresh.replace(kept)
    with np.load(kept) as values:
        return Small(*(torch.from_numpy(values[name]) for name in ("z", "picture")))


def native_spec(seed: int, settings: Settings) -> RenderSpec:
    """The render of a seed's picture at the trained size."""
    return quality_rows.spec_of(Row("native", "method"), Cell(NATIVE, NATIVE), settings, seed)


def drawn(spec: RenderSpec) -> Tensor:
    """The last latents of a render, [1, C, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/picture.zarr"
        render(spec.model_copy(update={"out": out}))
        store = Store.open(out)
        last = store.last_state()
        assert last is not None
        rows = slice(0, store.layout.latents[last.stage].shape[-2])
        z_C1HW = store.load_latents(last.stage, last.slot, rows)
    return torch.from_numpy(np.ascontiguousarray(z_C1HW[:, 0]))[None]


@torch.no_grad()
def encoded(seed: int) -> Tensor:
    """The same of a seed's scene, drawn at 256 pixels."""
    config = vae().config
    x_1CHW = to_tensor(scenes.draw(scenes.scene_from(seed), NATIVE, NATIVE))
    z_1CHW: Tensor = vae().encode(x_1CHW).latent_dist.mode()
    return (z_1CHW - config.shift_factor) * config.scaling_factor


@torch.no_grad()
def decoded(z_1CHW: Tensor) -> Tensor:
    """The autoencoder's decode of latents, in about [-1, 1]."""
    config = vae().config
    picture_13HW: Tensor = vae().decode(z_1CHW / config.scaling_factor + config.shift_factor).sample
    return picture_13HW


@functools.cache
def vae() -> Any:
    """The demo's autoencoder as diffusers loads it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(Path(checkpoint.find("demo")) / "vae").eval()


def to_tensor(picture_HWC: Pixels) -> Tensor:
    """[1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(picture_HWC.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(x_13HW: Tensor) -> Pixels:
    """uint8 [H, W, 3] of a tensor in about [-1, 1]."""
    grey = ((x_13HW[0].float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return grey.permute(1, 2, 0).contiguous().numpy()
