"""FreeU's factors on bands: the authors' filter, and diffusers' U-Net, with no module changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from frieze.cluster.bands import BandError, band_mode, mark
from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.extrapolation.skip_filter import (
    FreeU,
    SkipSite,
    damped,
    free_u,
    hook_skips,
    skip_sites,
)
from support.shared import kept
from support.vectors import ROUNDED, about, difference, noise, vectors
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

FACTORS = FreeU(b1=1.1, b2=1.2, s1=0.6, s2=0.4)
# As diffusers has it, by block: all of the first block, and all of the second.
SITES = [
    *(SkipSite(f"up_blocks.0.resnets.{i}", 24, 1) for i in range(3)),
    SkipSite("up_blocks.1.resnets.0", 24, 2),
    *(SkipSite(f"up_blocks.1.resnets.{i}", 16, 2) for i in (1, 2)),
]


def cuts(rows: int, unit: int) -> tuple[tuple[Band, ...], ...]:
    """One band; two and three unequal ones."""
    return (
        (Band(0, rows),),
        (Band(0, unit), Band(unit, rows)),
        (Band(0, unit), Band(unit, 3 * unit), Band(3 * unit, rows)),
    )


def test_skips_are_gated_by_the_channels_that_come_up() -> None:
    """As the released code does, where 1280 and 640 channels are the widest two."""
    with torch.device("meta"):
        sdxl = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )
        plain = UNet2DConditionModel()
    assert skip_sites(sdxl) == [
        *(SkipSite(f"up_blocks.0.resnets.{i}", 1280, 1) for i in range(3)),
        SkipSite("up_blocks.1.resnets.0", 1280, 1),
        *(SkipSite(f"up_blocks.1.resnets.{i}", 640, 2) for i in (1, 2)),
        SkipSite("up_blocks.2.resnets.0", 640, 2),
    ]
    assert [(site.layer, site.width) for site in skip_sites(plain)] == [
        *((f"up_blocks.{i}.resnets.{j}", 1) for i in (0, 1) for j in range(3)),
        ("up_blocks.2.resnets.0", 1),
        *((f"up_blocks.2.resnets.{j}", 2) for j in (1, 2)),
        ("up_blocks.3.resnets.0", 2),
    ]


@pytest.mark.parametrize("vector", vectors("freeu"))
def test_a_filtered_map_is_the_authors(vector: dict[str, Any]) -> None:
    x = noise(tuple(vector["shape"]), vector["seed"])
    for bands in cuts(x.shape[-2], 2):
        parts = run_threads(
            lambda comm, bands=bands: damped(
                x[:, :, bands[comm.rank].start : bands[comm.rank].stop],
                vector["scale"],
                comm,
                bands,
            ),
            len(bands),
            timeout=AMPLE,
        )
        assert difference(torch.cat(parts, 2), vector["output"]) <= ROUNDED, bands
    alone = [damped(x[:, :, b.start : b.stop], vector["scale"], solo(), (b,)) for b in bands]
    assert difference(torch.cat(alone, 2), vector["output"]) > CONTROL, "control"


def test_a_map_of_another_resolution_has_its_share_of_the_bands() -> None:
    x, bands = noise((1, 3, 8, 5), 4), (Band(0, 8), Band(8, 12), Band(12, 32))
    spans = (slice(0, 2), slice(2, 3), slice(3, 8))
    parts = run_threads(
        lambda comm: damped(x[:, :, spans[comm.rank]], 0.3, comm, bands), 3, timeout=AMPLE
    )
    whole = damped(x, 0.3, solo(), (Band(0, 32),))
    assert float((torch.cat(parts, 2) - whole).abs().max()) <= EXACT_FLOAT64
    with pytest.raises(BandError, match="cut the canvas at multiples of 4"):
        run_threads(
            lambda comm: damped(x[:, :, :1], 0.3, comm, (Band(0, 4), Band(4, 7))), 2, timeout=AMPLE
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    x = noise((1, 130, 64, 48), 9)
    exact = damped(x, 0.6, solo(), (Band(0, 64),))
    made = damped(x.to(dtype), 0.6, solo(), (Band(0, 64),))
    assert made.dtype == dtype
    assert float((made.double() - exact).abs().max()) <= 8 * torch.finfo(dtype).eps


@kept
def unet() -> Any:
    network = UNet2DConditionModel(**about("sdxl_like")).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    hook_skips(network, SITES)
    hook_skips(network, SITES)  # once is enough
    marks = (
        mark(network, lambda name, layer: name.endswith("attn1")),
        mark(network, lambda name, layer: name.endswith("attn2"), local=True),
    )
    return network, marks


def drawn(bands: tuple[Band, ...], factors: FreeU | None) -> Tensor:
    network, marks = unet()
    x, text = noise((1, 4, 32, 64), 5), noise((1, 5, 8), 6)

    def rank(comm: Comm) -> Tensor:
        band = bands[comm.rank]
        with (
            torch.no_grad(),
            band_mode(comm, bands, marks=marks, canvas=Canvas(1, 32, 64)),
            free_u(factors, comm, bands),
        ):
            out: Tensor = network(x[:, :, band.start : band.stop], 500.0, text).sample
            return out

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 2)


def test_a_unet_on_any_bands_is_diffusers() -> None:
    network, _ = unet()
    network.enable_freeu(s1=FACTORS.s1, s2=FACTORS.s2, b1=FACTORS.b1, b2=FACTORS.b2)
    expected = drawn(cuts(32, 4)[0], None)
    network.disable_freeu()
    whole = drawn(cuts(32, 4)[0], FACTORS)
    assert float((whole - expected).abs().max()) <= ROUNDED  # diffusers filters in float32
    for bands in cuts(32, 4):
        assert float((drawn(bands, FACTORS) - whole).abs().max()) <= EXACT_FLOAT64, bands
    plain = drawn(cuts(32, 4)[0], None)
    assert float((plain - expected).abs().max()) > CONTROL
    assert float((drawn(bands, FreeU(1, 1, 1, 1)) - plain).abs().max()) <= EXACT_FLOAT64
