"""Pictures to train on that cost nothing, and whether two networks are the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.renderer.autoencoders.infgen_positions import Window


class Stripes:
    """Pictures of sharp stripes, of which the decode at 32 pixels knows the means only."""

    def __len__(self) -> int:
        return 3

    def decoded_size(self, number: int) -> tuple[int, int]:
        return 32, 32

    def latents(self, number: int) -> tuple[Tensor, Tensor]:
        picture = self.crop(number, Window.whole(self.decoded_size(number)))
        z = F.avg_pool2d(picture, 8)
        return torch.cat([z, z[:, :1]], dim=1), F.avg_pool2d(picture, 3, 1, 1)

    def crop(self, number: int, window: Window) -> Tensor:
        x = (torch.arange(window.columns.start, window.columns.stop) + 0.5) / window.size[1]
        y = (torch.arange(window.rows.start, window.rows.stop) + 0.5) / window.size[0]
        waves = (2 * math.pi * (number + 1) * (3 * x + y[:, None])).sin().sign() * 0.8
        return waves.expand(1, 3, -1, -1).clone()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
