"""What a decoder draws by now: a picture's enlarged decode, what is drawn of it, and itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..autoencoders.decoding import quantise
from ..autoencoders.infgen_network import PATCH, InfGenDecoder
from ..autoencoders.infgen_positions import Window
from .pictures.sources import CachedPictures

ROWS, SIDE, SCALE = 3, 256, 2.0  # pictures, most pixels a side of each, their enlargement


@torch.no_grad()
def write_samples(network: InfGenDecoder, pictures: CachedPictures, path: Path) -> None:
    """Write a PNG, a row for each of a few pictures: decode, drawn, real, side by side."""
    rows = [_row(network, pictures, number) for number in _chosen(len(pictures))]
    width = max(row.shape[1] for row in rows)
    sheet = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    part = path.with_name(f"{path.name}.part")
    Image.fromarray(np.concatenate(sheet)).save(part, "png")
    os.replace(part, path)


def _chosen(there: int) -> list[int]:
    """Evenly of all that there are."""
    number = min(ROWS, there)
    return [row * there // number for row in range(number)]


def _row(network: InfGenDecoder, pictures: CachedPictures, number: int) -> np.ndarray:
    """One picture's middle, [H, 3 W, 3] uint8."""
    scale = min(SCALE, pictures.most_scale(number))
    height, width = (int(s * scale) // PATCH * PATCH for s in pictures.decoded_size(number))
    middle = Window((height, width), _middle(height), _middle(width))
    latent = network.latent(*pictures.latents(number))
    parts: list[Tensor] = [
        network.enlarged(latent, middle),
        network.draw(latent, middle, seed=number),
        pictures.crop(number, middle),
    ]
    return np.concatenate([quantise(part, 8) for part in parts], axis=1)


def _middle(size: int) -> range:
    """The middle of an axis, of whole tokens."""
    side = min(SIDE, size)
    start = (size - side) // 2 // PATCH * PATCH
    return range(start, start + side)
