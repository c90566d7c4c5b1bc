"""Latents of pictures and their exact decodes, made once by a model's autoencoder, kept in files.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...autoencoders.autoencoder import Autoencoder

LATENTS, DECODE = "latents", "decode"


class LatentCache:
    """A file for each picture, by its key: latents in float32, their decode in float16."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, key: str) -> bool:
        """Whether a picture's file is there: whole, for it gets its name when it is."""
        return self._path(key).exists()

    def fill(self, keys: list[str], pixels_B3HW: Tensor, autoencoder: Autoencoder) -> None:
        """Encode pictures of one size in [-1, 1], decode that again, and write both."""
        device = next(autoencoder.vae.vae.parameters()).device
        z_BCHW = autoencoder.encoded(pixels_B3HW.to(device))
        decode_B3HW = autoencoder.decoded(z_BCHW)
        self.folder.mkdir(parents=True, exist_ok=True)
        for key, z_CHW, decode_3HW in zip(keys, z_BCHW.cpu(), decode_B3HW.cpu(), strict=True):
            part = self.folder / f"{key}.{os.getpid()}.part"
            save_file(
                {LATENTS: z_CHW.float().contiguous(), DECODE: decode_3HW.half().contiguous()}, part
            )
            os.replace(part, self._path(key))

    def read(self, key: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Latents [1, C, H, W] and decode [1, 3, H, W] of a picture, float32."""
        with safe_open(self._path(key), framework="pt") as file:
            z_CHW, decode_3HW = file.get_tensor(LATENTS), file.get_tensor(DECODE)
        return z_CHW[None].to(device), decode_3HW[None].to(device).float()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
