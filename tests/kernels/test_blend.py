"""Weights of overlapping tiles add up to 1 at every cell; the low band of a map and its edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frieze.cluster.layout import tile_starts
from frieze.kernels.blend import add_weighted, hats, low_band, partition, taper
from support.tiled_sides import TiledSide, tiled_sides
from tolerances import CONTROL, EXACT_FLOAT64

SUM = 1e-12  # how near to 1 the weights of all tiles are


@given(tiled_sides())
def test_weights_add_up_to_1_at_edges_too(side: TiledSide) -> None:
    _, length, size, overlap, starts = side
    total = torch.zeros(length, dtype=torch.float64)
    for start, part in zip(starts, partition(starts, size, length, overlap), strict=True):
        assert bool((part > 0).all())
        total[start : start + size] += part
    assert float((total - 1).abs().max()) <= SUM


def test_control_weights_that_are_not_divided_do_not() -> None:
    starts, total = tile_starts(20, 8, 2, 2, 4), torch.zeros(20, dtype=torch.float64)
    for start in starts:
        total[start : start + 8] += taper(8, 2)
    assert float((total - 1).abs().max()) > CONTROL


def test_tiles_are_blended_where_they_lie() -> None:
    total, tile = torch.zeros(1, 2, 4, 4, dtype=torch.float64), torch.full((1, 2, 2, 2), 3.0)
    add_weighted(total[..., 1:3, 2:4], tile.double(), torch.tensor([1, 0.5]), torch.tensor([1, 2]))
    assert total[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 3, 6], [0, 0, 1.5, 3], [0, 0, 0, 0]]


def test_a_low_band_keeps_means_and_what_is_slow() -> None:
    rows = torch.arange(32, dtype=torch.float64) + 0.5
    slow, fast = (torch.cos(torch.pi * rows * k / 32).expand(1, 6, 32) for k in (2, 28))
    assert float((low_band(slow + 2, 0.5) - slow - 2).abs().max()) < CONTROL
    assert float(low_band(fast, 0.5).abs().max()) < 0.02
    step = torch.cat([torch.zeros(1, 6, 16), torch.ones(1, 6, 16)], dim=-1).double()
    ends = low_band(step, 0.5)[..., [0, -1]]
    assert float((ends - torch.tensor([0.0, 1.0])).abs().max()) < 0.05  # it does not go round


@given(st.integers(2, 30), st.integers(1, 9))
def test_hats_are_exact_on_lines_and_add_up_to_1(length: int, number: int) -> None:
    places = [(i + 0.5) * length / number for i in range(number)]
    found = hats(places, length)
    assert torch.allclose(found.sum(1), torch.ones(length, dtype=torch.float64))
    inside = torch.arange(length, dtype=torch.float64) + 0.5
    held = inside.clamp(min(places), max(places))
    line = found @ torch.tensor(places, dtype=torch.float64)
    assert float((line - held).abs().max()) <= EXACT_FLOAT64


@pytest.mark.parametrize("cutoff", [0.25, 1.0])
def test_a_map_of_one_cell_is_its_own_low_band(cutoff: float) -> None:
    x = torch.full((1, 3, 1, 1), 2.5)
    assert torch.allclose(low_band(x, cutoff), x)
