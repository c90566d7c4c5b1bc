"""A model's autoencoder without the model: pictures to latents and back, whole, on one device.

Shape suffixes: B batch, C channels, T frames (1), H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from frieze.cluster.comm import worlds as comms
from frieze.cluster.layout import Band, Canvas

from ..checkpoints.configs import index_of
from ..errors import ModelError
from ..models import loading
from .decoding import decode
from .patch_vae import PatchVAE
from .picture_vae import PictureVAE
from .video_vae import CausalVAE

if TYPE_CHECKING:
    from ..checkpoints.facts import ModelFacts
    from ..models.family import Model
    from ..spec.render_spec import RenderSpec

# By the class that model_index.json names.
KINDS: dict[str, type] = {
    "AutoencoderKL": PictureVAE,
    "AutoencoderKLFlux2": PatchVAE,
    "AutoencoderKLQwenImage": CausalVAE,
    "AutoencoderKLWan": CausalVAE,
}


class Autoencoder:
    """Encodes and decodes pictures as the model's own render does on one rank."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    @torch.no_grad()
    def encoded(self, pixels_B3HW: Tensor) -> Tensor:
        """Latents [B, C, H, W] of pixels in [-1, 1], as the denoiser knows them."""
        latents_BCTHW: Tensor = self.vae.encoded(pixels_B3HW.unsqueeze(2))
        return latents_BCTHW.squeeze(2)

    @torch.no_grad()
    def decoded(self, x_BCHW: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in about [-1, 1], float32 at least."""
        _, _, height, width = x_BCHW.shape
        bands, canvas = (Band(0, height),), Canvas(1, height, width)
        # Of a model, what decoding asks for is its autoencoder's.
        model = cast("Model", self.vae)
        work = (model, x_BCHW.unsqueeze(2), bands, canvas, comms.solo())
        pieces = decode(*work, rows_per_block=2**30)
        pixels = torch.cat([piece.pixels_BCTHW for piece in pieces], dim=3).squeeze(2)
        return pixels.to(torch.promote_types(pixels.dtype, torch.float32))


def check(facts: ModelFacts) -> str:
    """The class of a model's autoencoder; raises `ModelError` for one that is not known here."""
    kind = index_of(Path(facts.folder)).parts.get("vae", (None, None))[1]
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ModelError(f"{facts.folder} has {kind or 'no'} autoencoder; {known} work here")
    return kind


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Autoencoder:
    """A model's autoencoder in the precision of `spec`, and nothing else of it.

    Raises `ModelError` where it is not known, or its files are damaged.
    """
    kind = check(facts)
    vae = loading.autoencoder(kind, facts, spec).to(device)
    return Autoencoder(KINDS[kind](vae))
