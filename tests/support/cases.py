"""The exactness table: nine diffusers modules, their canvases and what bands must keep whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frieze.cluster.attention import Context
from frieze.cluster.layout import Band, Canvas
from support.models import (
    NUM_TEXT,
    Draw,
    autoencoder,
    decode,
    denoise_flux,
    denoise_qwen,
    denoise_sd3,
    denoise_unet,
    denoise_wan,
    encode,
    flux,
    positioned,
    qwen,
    rau_net,
    sd3,
    unet,
    wan,
    wan_autoencoder,
)

WIDTH = 6


@dataclass(frozen=True)
class Case:
    """One module of the exactness table."""

    name: str
    build: Callable[[], nn.Module]
    draw: Draw
    shape: tuple[int, ...]  # of the input canvas
    match: Callable[[str], bool]
    context: Context | None = None
    align: int = 1  # latent rows that stay together
    input_scale: int = 1  # input rows per latent row
    keeps_state: bool = False  # in the module between calls: every rank needs its own

    @property
    def height(self) -> int:
        """Latent rows of the canvas."""
        return self.shape[-2] // self.input_scale

    @property
    def latent(self) -> Canvas:
        """The canvas in latent units."""
        frames = self.shape[2] if len(self.shape) == 5 else 1
        return Canvas(frames, self.height, self.shape[-1] // self.input_scale)

    def model(self, dtype: torch.dtype) -> nn.Module:
        """The module with spread random parameters."""
        torch.manual_seed(0)
        model = nn.Module.to(self.build(), dtype).eval()  # past the warnings of diffusers' own
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.data.normal_(std=0.5, mean=1.0 if "weight" in name else 0.0)
            else:
                parameter.data.normal_(std=1.2 / math.sqrt(parameter[0].numel()))
        if self.name == "wan_vae_decode":  # it clamps to [-1, 1]: stay well inside
            model.decoder.conv_out.weight.data.mul_(0.05)
            model.decoder.conv_out.bias.data.mul_(0.05)
        return model

    def canvas(self, dtype: torch.dtype) -> Tensor:
        """The whole input."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.shape, generator=generator, dtype=torch.float64).to(dtype)

    def rows_of(self, x: Tensor, band: Band) -> Tensor:
        """A band of the input canvas."""
        return x[..., band.start * self.input_scale : band.stop * self.input_scale, :]


def _ends(*suffixes: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(suffixes)


CASES = {
    case.name: case
    for case in (
        Case(
            "vae_decode",
            autoencoder,
            decode,
            (1, 4, 9, WIDTH),
            _ends("decoder.mid_block.attentions.0"),
        ),
        Case(
            "vae_encode",
            autoencoder,
            encode,
            (1, 3, 36, 4 * WIDTH),
            _ends("encoder.mid_block.attentions.0"),
            input_scale=4,
        ),
        Case("unet", unet, denoise_unet, (1, 4, 14, WIDTH), _ends("attn1"), align=2),
        Case("rau_net", rau_net, denoise_unet, (1, 4, 28, 8), _ends("attn1"), align=4),
        Case(
            "flux",
            flux,
            denoise_flux,
            (1, 4, 14, WIDTH),
            _ends(".attn"),
            Context(NUM_TEXT, "front"),
            align=2,
        ),
        Case(
            "sd3",
            sd3,
            positioned(denoise_sd3, 14),
            (1, 4, 14, WIDTH),
            _ends(".attn"),
            Context(NUM_TEXT, "rear"),
            align=2,
        ),
        Case(
            "qwen_image",
            qwen,
            positioned(denoise_qwen, 14),
            (1, 4, 14, WIDTH),
            _ends(".attn"),
            Context(NUM_TEXT, "front"),
            align=2,
        ),
        Case(
            "wan", wan, positioned(denoise_wan, 14), (1, 4, 3, 14, WIDTH), _ends("attn1"), align=2
        ),
        Case(
            "wan_vae_decode",
            wan_autoencoder,
            decode,
            (1, 4, 3, 9, WIDTH),
            _ends("decoder.mid_block.attentions.0"),
            keeps_state=True,
        ),
    )
}
