"""What InfGen's decoder costs: flat memory in the height, and few FLOPs at FLUX's width."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import decoder_cost, decoder_flops
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
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
    """The control is one worker on a canvas whose exact decode grows with it."""
    folder = saved(tmp_path, width=64, pixel_widths=(16, 32))
    low, high = (decoder_cost.peak_apart(folder, height, height // 256) for height in (512, 2048))
    assert high < 1.2 * low
