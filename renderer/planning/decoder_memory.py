"""What a decoder of any size needs: its own modules run on one block of the picture without memory.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frieze.cluster.layout import Canvas
from frieze.kernels.flop_count import flop_count
from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.operator_workspace import workspace

from ..autoencoders.infgen_network import InfGenDecoder
from ..autoencoders.infgen_positions import Window
from ..checkpoints.configs import read_json
from ..checkpoints.decoder import DecoderFacts
from ..files.library_errors import as_model_error
from .estimate import Estimate

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

META = torch.device("meta")


def with_decoder(
    estimate: Estimate,
    decoder: DecoderFacts,
    spec: RenderSpec,
    canvas: Canvas,
    downscale: int,
    rows_per_block: int,
) -> Estimate:
    """The estimate of a render whose last stage is decoded so; raises `ModelError`.

    Before it the autoencoder decodes as ever, at the last stage's size.
    """
    network = skeleton(decoder, getattr(torch, spec.dtype))
    size = (spec.height, spec.width)
    top = (spec.height - rows_per_block) // 2
    window = Window(size, range(top, top + rows_per_block), range(spec.width))
    small = (canvas.height, canvas.width)
    pixels = (canvas.height * downscale, canvas.width * downscale)
    told = as_model_error(Path(decoder.folder), "be run as its config says")
    with told, LiveBytes(workspace) as live, flop_count() as count, torch.no_grad():
        z_BCHW = torch.empty(1, decoder.config.latent_channels, *small, device=META)
        latent = network.latent(z_BCHW, torch.empty(1, 3, *pixels, device=META))
        network.draw(latent, window, seed=spec.seed)
    weights = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    whole = 4 * spec.num_frames * 3 * pixels[0] * pixels[1]  # the exact decode, on every rank
    blocks = -(-spec.height // rows_per_block) * spec.num_frames
    return dataclasses.replace(
        estimate,
        weights=estimate.weights + weights,
        decode=max(estimate.decode, live.peak.num_bytes) + whole,
        decoder_flops=count.total * blocks,
        parts={**estimate.parts, "decoder": weights},
    )


def skeleton(decoder: DecoderFacts, dtype: torch.dtype) -> InfGenDecoder:
    """The network on meta, from its config alone."""
    path = Path(decoder.folder) / "config.json"
    config = read_json(path)
    with as_model_error(path, "be built from"), META:
        network = InfGenDecoder.from_config(config)
    assert isinstance(network, InfGenDecoder)
    for weight in [*network.parameters(), *network.buffers()]:
        weight.data = weight.data.to(dtype)
    return network.eval().requires_grad_(False)
