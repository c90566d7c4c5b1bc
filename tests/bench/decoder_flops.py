"""FLOPs of decoders, counted on tensors without memory as `frieze plan` counts them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from frieze.cluster.layout import Canvas
from frieze.kernels.flop_count import flop_count
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.configs import parse, read_json
from frieze.renderer.checkpoints.decoder import DecoderConfig, DecoderFacts
from frieze.renderer.planning import decoder_memory
from frieze.renderer.planning.estimate import Estimate
from frieze.renderer.spec.render_spec import RenderSpec

META = torch.device("meta")
DOWNSCALE = 8  # pixels of a latent cell's side, of all autoencoders here


def facts_of(folder: Path) -> DecoderFacts:
    """A decoder by its config.json alone."""
    path = folder / "config.json"
    return DecoderFacts(str(folder), parse(DecoderConfig, read_json(path), path), 0)


def by_block(folder: Path, side: int, trained: int, block: int) -> int:
    """Of an InfGen decoder that draws a square in rows of blocks, as a plan says: halos count."""
    spec, cells = RenderSpec(height=side, width=side), trained // DOWNSCALE
    stage = decoder_memory.Enlarged(
        Canvas(1, cells, cells), (trained, trained), False, (side, side), block
    )
    nothing = Estimate(0, 0, 0)
    return decoder_memory.with_decoder(nothing, facts_of(folder), spec, [stage]).decoder_flops


@torch.no_grad()
def in_steps(folder: Path, side: int, trained: int, block: int, num_steps: int | None) -> int:
    """The same in another number of steps than the decoder's own."""
    facts, cells = facts_of(folder), trained // DOWNSCALE
    network = decoder_memory.skeleton(facts, torch.float32)
    z_1CHW = torch.empty(1, facts.config.latent_channels, cells, cells, device=META)
    top = (side - block) // 2
    window = Window((side, side), range(top, top + block), range(side))
    with flop_count() as once:
        latent = network.latent(z_1CHW, torch.empty(1, 3, trained, trained, device=META))
    with flop_count() as each:
        network.draw(latent, window, seed=0, num_steps=num_steps)
    return once.total + each.total * (side // block)


@torch.no_grad()
def exact(config: Mapping[str, Any], side: int) -> int:
    """Of an autoencoder's exact decode of a square, with attention over all of it."""
    from diffusers import AutoencoderKL

    with META:
        vae = AutoencoderKL.from_config(dict(config))
    cells = side // DOWNSCALE
    with flop_count() as count:
        vae.decode(torch.empty(1, config["latent_channels"], cells, cells, device=META))
    return count.total
