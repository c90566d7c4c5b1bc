"""A discriminator of patches, and what it and a decoder lose to each other.

It reads a residual together with what is known of the picture without it (PatchGAN, arXiv
1611.07004): of two residuals that are both likely somewhere it must say which is likely here.
Hinge losses (arXiv 1705.02894); its slope at real pictures is penalised (R1, arXiv 1801.04406).
Shape suffixes: B batch, K channels of what is known, h, w of a crop, H, W of its judgements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..autoencoders.infgen_network import contrast

KNOWN = 6  # channels: the enlarged decode, and its contrast
LEAK = 0.2
MOST = 8.0  # larger residuals, of stars that no latent tells of, are judged as such ones


class PatchDiscriminator(nn.Module):
    """Judgements, above 0 for real, of patches of two sizes, which count alike.

    `near` sees edges: every 4 x 4 pixels by the 26 x 26 around them; `far` sees what they enclose:
    every 8 x 8 by the 54 x 54 around. No layer normalises: batches are small, and the penalty of
    the slope does what norms are for.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3 + KNOWN, width, 4, 2, 1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(LEAK),
        )
        self.near = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )
        self.far = nn.Sequential(
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, residual_B3hw: Tensor, known_BKhw: Tensor) -> Tensor:
        """Judgements [B, 1, H, W] of 4 x 4 pixels each, and those of the larger ones beside them.

        Sides of what is judged are multiples of 8 pixels.
        """
        given = torch.cat([residual_B3hw.clamp(-MOST, MOST), known_BKhw], dim=1)
        x_BCHW = self.down(given)
        far_B1HW = F.interpolate(self.far(x_BCHW), scale_factor=2, mode="nearest")
        return torch.cat([self.near(x_BCHW), far_B1HW], dim=3)


def known(low_B3hw: Tensor) -> Tensor:
    """What a residual is judged beside, [B, K, h, w], of the enlarged decode."""
    return torch.cat([low_B3hw, contrast(low_B3hw)], dim=1)


def discriminator_loss(real_B1HW: Tensor, drawn_B1HW: Tensor) -> Tensor:
    """Hinge: 0 where all real judgements are above 1 and all drawn ones below -1; 2 for none."""
    return F.relu(1 - real_B1HW).mean() + F.relu(1 + drawn_B1HW).mean()


def slope_penalty(discriminator: nn.Module, real_B3hw: Tensor, known_BKhw: Tensor) -> Tensor:
    """R1: squared length of the slope of all judgements at real residuals, a judgement."""
    real_B3hw = real_B3hw.detach().requires_grad_()
    judged = discriminator(real_B3hw, known_BKhw)
    (slope,) = torch.autograd.grad(judged.sum(), real_B3hw, create_graph=True)
    return slope.square().sum() / judged.numel()
