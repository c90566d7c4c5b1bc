"""AutoencoderKLFlux2, whose denoiser knows patches of its cells, normalised by a batch norm.

Shape suffixes: B batch, C channels, T frames (1), H rows of a band, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .picture_vae import PictureVAE

if TYPE_CHECKING:
    from torch import Tensor

# Cells of the autoencoder on a side of one cell here.
CELLS = 2


class PatchVAE(PictureVAE):
    """FLUX.2's autoencoder: 16 pixels a cell, four times the channels."""

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """The decoder up to its tail, from cells of 8 pixels: [B, C, H, W]."""
        mean, std = self._statistics(x_BCTHW)
        return self.raw_features(to_cells(x_BCTHW.squeeze(2) * std + mean))

    def encoded(self, pixels_BCTHW: Tensor) -> Tensor:
        """The posterior's mode [B, 4 c, 1, H, W], as patches, normalised."""
        patches_BCHW = to_patches(self.raw_encoded(pixels_BCTHW.squeeze(2)))
        mean, std = self._statistics(patches_BCHW)
        return ((patches_BCHW - mean) / std).unsqueeze(2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, [1, C, 1, 1]."""
        import torch

        norm: Any = self.vae.bn
        std = torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps)
        return norm.running_mean.view(1, -1, 1, 1).to(like), std.view(1, -1, 1, 1).to(like)


def to_patches(x_BCHW: Tensor) -> Tensor:
    """Cells of 8 pixels to patches of 2 x 2: [B, 4 C, H / 2, W / 2]."""
    x = x_BCHW.unflatten(3, (-1, CELLS)).unflatten(2, (-1, CELLS))
    return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def to_cells(x_BCHW: Tensor) -> Tensor:
    """The inverse of `to_patches`."""
    x = x_BCHW.unflatten(1, (-1, CELLS, CELLS))
    return x.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
