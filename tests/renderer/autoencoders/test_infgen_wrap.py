"""InfGen where sides meet: any window of the canvas, and it goes round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from support.decoders import decoder
from tolerances import CONTROL, EXACT_FLOAT64

CELLS, SIZE = (6, 7), (96, 112)


def known(network: InfGenDecoder, z_BCHW: Tensor, picture_B3HW: Tensor, wraps: str) -> Tensor:
    """All of the canvas."""
    return drawn(network, z_BCHW, picture_B3HW, Window.whole(SIZE, wraps))


def drawn(network: InfGenDecoder, z_BCHW: Tensor, picture_B3HW: Tensor, window: Window) -> Tensor:
    tokens = network.asked(Window.whole(SIZE, window.wraps)) if window.wraps else None
    latent = network.latent(z_BCHW, picture_B3HW, tokens)
    return network.draw(latent, window, seed=3)


def given() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    z_BCHW = torch.randn(1, 4, *CELLS, generator=generator, dtype=torch.float64)
    rows, columns = (8 * side for side in CELLS)
    picture = torch.randn(1, 3, rows, columns, generator=generator, dtype=torch.float64) / 3
    return z_BCHW, picture


@pytest.mark.parametrize("mode", ["window", "global"])
@pytest.mark.parametrize("wraps", ["x", "xy"])
@torch.no_grad()
def test_a_window_over_the_sides_is_what_lies_there(mode: str, wraps: str) -> None:
    network, what = decoder(mode=mode), given()
    whole = known(network, *what, wraps)
    rows = range(-16, 24) if "y" in wraps else range(24)
    over = drawn(network, *what, Window(SIZE, rows, range(100, 132), wraps))
    expected = whole.roll((16 if "y" in wraps else 0, -100), (-2, -1))[..., : len(rows), :32]
    assert float((over - expected).abs().max()) <= EXACT_FLOAT64
    inner = drawn(network, *what, Window(SIZE, range(40, 56), range(100, 112), wraps))
    assert float((inner - whole[..., 40:56, 100:]).abs().max()) <= EXACT_FLOAT64
    plain = known(network, *what, "")
    assert float((plain - whole)[..., 100:].abs().max()) > CONTROL, "control: sides count"
