"""What InfGen's decoder costs: flat memory in the height, and few FLOPs at FLUX's width."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import decoder_cost, decoder_flops
from frieze.kernels.live_bytes import LiveBytes
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.configs import read_json
from support.decoders import saved


@pytest.mark.slow
def test_at_flux_width_8192_pixels_are_under_a_petaflop() -> None:
    """By blocks, halos included, as a plan counts; nothing is allocated."""
    work = decoder_flops.by_block(decoder_cost.FLUX, 8192, 1024, 512)
    assert 0.3e15 < work <= 0.9e15


def test_the_config_of_flux_width_builds_and_fits_its_latents() -> None:
    config = read_json(decoder_cost.FLUX / "config.json")
    with torch.device("meta"):
        network = InfGenDecoder.from_config(config)
    assert sum(weight.numel() for weight in network.parameters()) > 1e8
    assert {*config} - {"_class_name"} == {*InfGenDecoder().config} - {"_use_default_values"}


@pytest.mark.slow
def test_memory_is_flat_in_the_height_with_parked_bands(tmp_path: Path) -> None:
    """What tensors hold at the most, of any rank; the control draws all rows as one block."""
    folder = saved(tmp_path)
    peaks = {}
    for height in (512, 2048):
        found: list[LiveBytes] = []

        def watched(found: list[LiveBytes] = found) -> LiveBytes:
            found.append(LiveBytes())
            return found[-1]

        decoder_cost.draw_bands(folder, (height, 128), height // 256, watched)
        assert len(found) == height // 256
        peaks[height] = max(each.peak.num_bytes for each in found)
    assert peaks[2048] < 1.1 * peaks[512]
    network = InfGenDecoder.from_pretrained(folder)
    latent = network.latent(torch.zeros(1, 16, 64, 4), torch.zeros(1, 3, 512, 32))
    with LiveBytes() as live:
        network.draw(latent, Window.whole((2048, 128)), seed=0)
    assert live.peak.num_bytes > 2 * peaks[2048]
