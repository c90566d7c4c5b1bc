"""A canvas whose sides meet: what is rolled stays itself, alike on any bands."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from frieze.cluster.bands import BandError, BandMode, mark
from frieze.cluster.comm import Comm, CommError, run_threads
from frieze.cluster.layout import Band, Halo
from support.cases import CASES, Case
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

NAMES = ("unet", "rau_net", "vae_decode", "vae_encode", "wan_vae_decode")
# Rows of unequal bands, of the latent heights 14, 28 and 9.
SHARES = {1: (1.0,), 2: (0.3, 0.7), 3: (0.28, 0.44, 0.28)}


def bands_of(case: Case, size: int) -> tuple[Band, ...]:
    units, edges = case.height // case.align, [0]
    for share in SHARES[size][:-1]:
        edges.append(edges[-1] + max(2, round(units * share)))
    edges.append(units)
    return tuple(Band(a * case.align, b * case.align) for a, b in pairwise(edges))


def drawn(case: Case, models: list[nn.Module], x: Tensor, wraps: str, size: int) -> Tensor:
    marks = [mark(model, lambda name, _: case.match(name), case.context) for model in models]
    bands, latent = bands_of(case, size), dataclasses.replace(case.latent, wraps=wraps)

    def rank(comm: Comm) -> Tensor:
        at = comm.rank if case.keeps_state else 0
        band = bands[comm.rank]
        with torch.no_grad(), BandMode(comm, bands, marks=[marks[at]], canvas=latent):
            return case.draw(models[at], case.rows_of(x, band), band)

    try:
        return torch.cat(run_threads(rank, size, timeout=AMPLE), dim=-2)
    finally:
        for each in marks:
            each.remove()


def circular(layer: nn.Conv2d) -> nn.Conv2d:
    """The same convolution of what torch pads with the other side."""
    with torch.device("meta"):
        found = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode="circular",
        )
    found.load_state_dict(layer.state_dict(), assign=True)
    return found


def rolled(x: Tensor, case: Case, wraps: str, scale: int) -> Tensor:
    """Moved by whole latent cells, as many as stay together, along the sides that meet."""
    rows = 2 * case.align * scale if "y" in wraps else 0
    columns = case.align * scale if "x" in wraps else 0
    return x.roll((rows, columns), (-2, -1))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_rolled_comes_out_rolled_on_any_bands(name: str) -> None:
    case = CASES[name]
    models = [case.model(torch.float64) for _ in range(3 if case.keeps_state else 1)]
    x = case.canvas(torch.float64)
    plain = drawn(case, models, x, "", 1)
    scale = plain.shape[-2] // case.height  # rows of the result to a latent row

    for wraps in ("x", "y", "xy"):
        whole = drawn(case, models, x, wraps, 1)
        assert float((whole - plain).abs().max()) > CONTROL, "control"
        moved = rolled(x, case, wraps, case.input_scale)
        for size in (1, 2, 3):
            found = drawn(case, models, moved, wraps, size)
            assert (
                float((found - rolled(whole, case, wraps, scale)).abs().max()) <= EXACT_FLOAT64
            ), (wraps, size)
        bare = drawn(case, models, moved, "", 1)
        assert float((bare - rolled(plain, case, wraps, scale)).abs().max()) > CONTROL, "control"


@pytest.mark.parametrize("name", ["unet", "vae_decode"])
def test_it_is_torchs_circular_padding(name: str) -> None:
    case = CASES[name]
    model, x = case.model(torch.float64), case.canvas(torch.float64)
    found = drawn(case, [model], x, "xy", 3)
    for parent in list(model.modules()):
        for child, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                setattr(parent, child, circular(layer))
    with torch.no_grad():
        expected = case.draw(model, x, Band(0, case.height))
    assert float((found - expected).abs().max()) <= EXACT_FLOAT64


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_first_and_the_last_rank_are_neighbours(size: int) -> None:
    x = torch.arange(12.0).view(1, 12, 1)

    def rank(comm: Comm) -> list[Any]:
        rows = 12 // comm.size
        own = x[:, comm.rank * rows : (comm.rank + 1) * rows]
        return comm.borrow_around(own, Halo(2, 1), 1).flatten().tolist()

    for number, found in enumerate(run_threads(rank, size, timeout=AMPLE)):
        first = number * 12 // size
        assert found == [(first + i) % 12 for i in range(-2, 12 // size + 1)]


def test_what_cannot_wrap_says_so() -> None:
    def short(comm: Comm) -> None:
        comm.borrow_around(torch.zeros(1, 2, 1), Halo(3, 0), 1)

    with pytest.raises(CommError, match="has 2 rows, and neighbours need 3"):
        run_threads(short, 1)
    case = dataclasses.replace(CASES["unet"])
    latent = dataclasses.replace(case.latent, wraps="x")

    def blend(comm: Comm) -> None:
        with BandMode(comm, (Band(0, case.height),), canvas=latent):
            nn.functional.interpolate(case.canvas(torch.float64), scale_factor=2, mode="bicubic")

    with pytest.raises(BandError, match="repeats edges"):
        run_threads(blend, 1)
