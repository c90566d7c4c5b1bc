"""AutoencoderKL and its like, for the families whose pictures they decode: no model of their own.

Shape suffixes: B batch, C channels, T frames (1), H rows of a band, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..models.family import Tail

if TYPE_CHECKING:
    from torch import Tensor, nn

    from frieze.cluster.bands import Marks

ATTENTION = "mid_block.attentions.0"


class PictureVAE:
    """A loaded autoencoder of pictures: features, tail, encoded, and the marks of both halves.

    Its last three layers are taken out of the decoder, for `decode.py` runs them row by row, so
    that pixels can leave as they are made. One object serves many rank threads.
    """

    def __init__(self, vae: Any) -> None:
        from torch import nn

        self.vae = vae
        decoder: Any = vae.decoder
        self.tail = Tail(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
        decoder.conv_norm_out = nn.Identity()
        decoder.conv_act = nn.Identity()
        decoder.conv_out = nn.Identity()
        self.decoder_marks = _marks(vae, f"decoder.{ATTENTION}")
        self.encoder_marks = _marks(vae, f"encoder.{ATTENTION}")

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """The decoder up to its tail: [B, C, H, W] in the autoencoder's precision."""
        config: Any = self.vae.config
        scaled = x_BCTHW.squeeze(2) / config.scaling_factor + (config.shift_factor or 0.0)
        return self.raw_features(scaled)

    def encoded(self, pixels_BCTHW: Tensor) -> Tensor:
        """The posterior's mode [B, C, 1, H, W], scaled as the denoiser knows it."""
        config: Any = self.vae.config
        mode_BCHW = self.raw_encoded(pixels_BCTHW.squeeze(2))
        return ((mode_BCHW - (config.shift_factor or 0.0)) * config.scaling_factor).unsqueeze(2)

    def raw_features(self, z_BCHW: Tensor) -> Tensor:
        """`features` of latents as the autoencoder itself scales them."""
        output: Tensor = self.vae.decode(z_BCHW.to(self.vae.dtype), return_dict=False)[0]
        return output

    def raw_encoded(self, pixels_BCHW: Tensor) -> Tensor:
        """The posterior's mode as the autoencoder itself scales it, in the pixels' precision."""
        posterior: Any = self.vae.encode(pixels_BCHW.to(self.vae.dtype)).latent_dist
        mode: Tensor = posterior.mode()
        return mode.to(pixels_BCHW.dtype)


def around_mask(pixels_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """(1 where it is drawn, else 0, [B, 1, ...]; the picture, mid grey there) as pipelines have it.

    `pixels` are red, green and blue in [-1, 1], and how much of each is drawn.
    """
    drawn = (pixels_BCTHW[:, 3:] >= 0.5).to(pixels_BCTHW.dtype)
    return drawn, pixels_BCTHW[:, :3] * (1 - drawn)


def _marks(vae: nn.Module, attention: str) -> Sequence[Marks]:
    """The mid block's attention, where this autoencoder has one."""
    from frieze.cluster.bands import mark

    if attention not in dict(vae.named_modules()):
        return ()
    return (mark(vae, lambda name, _: name == attention),)
