"""What a decoder of any size needs: its own modules run on one block of the picture without memory.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from frieze.cluster.layout import Canvas
from frieze.kernels.flop_count import flop_count
from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.operator_workspace import workspace
from frieze.kernels.work import Work

from ..autoencoders import infgen
from ..autoencoders.infgen_network import InfGenDecoder
from ..autoencoders.infgen_positions import Window
from ..checkpoints.configs import read_json
from ..checkpoints.decoder import DecoderFacts
from ..files.library_errors import as_model_error
from .estimate import Estimate

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

META = torch.device("meta")


@dataclass(frozen=True)
class Enlarged:
    """A stage that the decoder enlarges: its canvas in cells, and its picture's sides in pixels.

    `stored`: the picture was encoded, and is read from the store as it is asked for. What is made
    of it has `size`, and is drawn so many rows at a time.
    """

    canvas: Canvas
    source: tuple[int, int]
    stored: bool
    size: tuple[int, int]
    rows_per_block: int


def with_decoder(
    estimate: Estimate, decoder: DecoderFacts, spec: RenderSpec, stages: Sequence[Enlarged]
) -> Estimate:
    """The estimate of a render whose stages are enlarged so; raises `ModelError`.

    Before it the autoencoder decodes a stage that was denoised as ever, at its own size.
    """
    network = skeleton(decoder, getattr(torch, spec.dtype))
    most, flops = 0, 0
    for stage in stages:
        with as_model_error(Path(decoder.folder), "be run as its config says"):
            needed, known, drawn = _block(network, stage, spec.seed)
        if not stage.stored:  # the exact decode, on every rank
            needed += 4 * spec.num_frames * 3 * stage.source[0] * stage.source[1]
        most = max(most, needed)
        flops += _all_blocks(stage, spec, known, drawn).flops
    weights = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    return dataclasses.replace(
        estimate,
        weights=estimate.weights + weights,
        decode=max(estimate.decode, most),
        decoder_flops=flops,
        parts={**estimate.parts, "decoder": weights},
    )


def _block(network: InfGenDecoder, stage: Enlarged, seed: int) -> tuple[int, Work, Work]:
    """Bytes of a block in the middle, and its work: what is known of the latent, and drawing.

    The latents of a clip are held whole.
    """
    rows = min(stage.rows_per_block, stage.size[0])
    top = (stage.size[0] - rows) // 2
    window = Window(stage.size, range(top, top + rows), range(stage.size[1]))
    canvas = (stage.canvas.height, stage.canvas.width)
    columns = stage.source[1]

    def read(_: int, rows: range) -> Tensor:
        return torch.empty(1, 3, len(rows), columns, device=META)

    with LiveBytes(workspace) as live, flop_count() as count, torch.no_grad():
        channels = network.config.latent_channels
        z_BCHW = torch.empty(stage.canvas.frames, channels, *canvas, device=META)[:1]
        anchor = infgen.Anchor(stage.source, read)
        latent = infgen.latent(network, z_BCHW, anchor, 0, window if stage.stored else None)
        known = count.work
        network.draw(latent, window, seed=seed)
    return live.peak.num_bytes, known, count.work - known


def _all_blocks(stage: Enlarged, spec: RenderSpec, known: Work, drawn: Work) -> Work:
    """Of all blocks of a stage, on all ranks together."""
    blocks = -(-stage.size[0] // stage.rows_per_block)
    # What is not read by rows is taken up once, by each worker that draws.
    times = blocks if stage.stored else min(blocks, spec.workers)
    return (known.times(times) + drawn.times(blocks)).times(spec.num_frames)


def decoder_work(decoder: DecoderFacts, spec: RenderSpec, stages: Sequence[Enlarged]) -> Work:
    """What the decoder asks of all ranks together; raises `ModelError`."""
    network, work = skeleton(decoder, getattr(torch, spec.dtype)), Work()
    for stage in stages:
        with as_model_error(Path(decoder.folder), "be run as its config says"):
            _, known, drawn = _block(network, stage, spec.seed)
        work += _all_blocks(stage, spec, known, drawn)
    return work


def skeleton(decoder: DecoderFacts, dtype: torch.dtype) -> InfGenDecoder:
    """The network on meta, from its config alone."""
    path = Path(decoder.folder) / "config.json"
    config = read_json(path)
    with as_model_error(path, "be built from"), META:
        network = InfGenDecoder.from_config(config)
    assert isinstance(network, InfGenDecoder)
    for weight in network.parameters():
        weight.data = weight.data.to(dtype)
    return network.eval().requires_grad_(False)
