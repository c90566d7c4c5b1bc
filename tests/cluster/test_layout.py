"""Cuts cover the canvas; conv_rows agrees with real convolutions; meshes are bijective."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.cluster.layout import (
    Band,
    Canvas,
    Halo,
    LayoutError,
    Mesh,
    conv_rows,
    cut,
    tile_starts,
)
from support.tiled_sides import TiledSide, tiled_sides
from tolerances import CONTROL, EXACT_FLOAT64

heights = st.integers(1, 200)
shares = st.lists(st.floats(0.01, 100), min_size=1, max_size=9)


@given(height=heights, parts=st.integers(1, 12), align=st.integers(1, 9))
def test_a_cut_covers_the_canvas_with_aligned_bands_of_like_height(
    height: int, parts: int, align: int
) -> None:
    assume(parts <= max(height // align, 1))
    bands = cut(height, parts, align)
    assert len(bands) == parts
    assert (bands[0].start, bands[-1].stop) == (0, height)
    assert all(above.stop == below.start for above, below in pairwise(bands))
    assert all(band.start % align == 0 for band in bands)
    assert all(band.rows >= min(align, height) for band in bands)
    whole = [-(-band.rows // align) if parts > 1 else 1 for band in bands[:-1]]
    whole.append(bands[-1].rows // align)
    assert max(whole) - min(whole) <= 1 or parts == 1


@given(height=heights, weights=shares, align=st.integers(1, 9))
def test_weighted_edges_lie_within_half_a_unit_where_every_share_is_a_unit(
    height: int, weights: list[float], align: int
) -> None:
    units = height // align
    exact = [Fraction(w) * units / sum(map(Fraction, weights)) for w in weights]
    assume(units >= len(weights))
    bands = cut(height, len(weights), align, weights)
    assert (bands[0].start, bands[-1].stop) == (0, height)
    assert all(band.rows >= align and band.start % align == 0 for band in bands)
    if min(exact) >= 1:
        for i, band in enumerate(bands):
            assert abs(Fraction(band.start, align) - sum(exact[:i])) <= Fraction(1, 2)


@given(height=heights, parts=st.integers(1, 300), align=st.integers(1, 9))
def test_too_many_parts_are_refused_with_the_most_possible(
    height: int, parts: int, align: int
) -> None:
    most = max(height // align, 1)
    assume(parts > most)
    with pytest.raises(LayoutError, match=f"at most {most} bands"):
        cut(height, parts, align)
    assert len(cut(height, most, align)) == most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1), "at least 1"),
        ((8, 0, 1), "at least 1"),
        ((8, 2, 1, [1.0]), "1 weights for 2 bands"),
        ((8, 2, 1, [1.0, 0.0]), "positive"),
        ((8, 2, 1, [1.0, float("nan")]), "positive"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        cut(*arguments)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[int, list[Band], dict]:
    """A height, an unequal cut of it, and a convolution's geometry that fits."""
    height = draw(st.integers(1, 40))
    kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    reach = dilation * (kernel - 1)
    padding = (draw(st.integers(0, reach)), draw(st.integers(0, reach)))
    assume(height + sum(padding) > reach)
    stride = draw(st.sampled_from([1, 2, 4]))
    edges = draw(st.sets(st.integers(1, height), max_size=6)) | {0, height}
    bands = [Band(*pair) for pair in pairwise(sorted(edges))]
    geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return height, bands, geometry


def convolved_bands(
    x_H: Tensor, bands: list[Band], weight_K: Tensor, geometry: dict, halo: bool = True
) -> list[tuple[Band, Tensor]]:
    """Each band's outputs from its rows and its halo alone; zeros outside the canvas."""
    far = 100
    padded = F.pad(x_H, (far, far))
    outputs = []
    for band in bands:
        out, reach = conv_rows(band, len(x_H), **geometry)
        rows = padded[far + band.start - reach.above : far + band.stop + reach.below].clone()
        if not halo:
            rows[: max(reach.above, 0)] = 0
            rows[len(rows) - max(reach.below, 0) :] = 0
        if out.rows:
            y = F.conv1d(
                rows[None, None],
                weight_K[None, None],
                stride=geometry["stride"],
                dilation=geometry["dilation"],
            )[0, 0]
        else:
            y = rows
        outputs.append((out, y))
    return outputs


@settings(max_examples=300, deadline=None)
@given(convolutions())
def test_convolving_bands_with_their_halo_equals_convolving_the_canvas(
    drawn: tuple[int, list[Band], dict],
) -> None:
    height, bands, geometry = drawn
    x_H = torch.randn(height, dtype=torch.float64)
    weight_K = torch.randn(geometry["kernel"], dtype=torch.float64)
    whole = F.conv1d(
        F.pad(x_H, geometry["padding"])[None, None],
        weight_K[None, None],
        stride=geometry["stride"],
        dilation=geometry["dilation"],
    )[0, 0]
    outputs = convolved_bands(x_H, bands, weight_K, geometry)
    assert [out.rows for out, _ in outputs] == [len(y) for _, y in outputs]
    assert outputs[0][0].start == 0
    assert all(a.stop == b.start for (a, _), (b, _) in pairwise(outputs))
    together = torch.cat([y for _, y in outputs])
    assert together.shape == whole.shape
    assert (together - whole).abs().max() <= EXACT_FLOAT64


def test_without_the_halo_the_bands_differ() -> None:
    x_H, weight_K = torch.randn(16, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    geometry = {"kernel": 3, "stride": 1, "padding": (1, 1), "dilation": 1}
    with_halo, without = (
        torch.cat([y for _, y in convolved_bands(x_H, list(cut(16, 3)), weight_K, geometry, h)])
        for h in (True, False)
    )
    assert (with_halo - without).abs().max() > CONTROL


def test_a_kernel_taller_than_the_padded_canvas_is_refused() -> None:
    with pytest.raises(LayoutError, match="spans 5 rows does not fit 3 rows"):
        conv_rows(Band(0, 3), 3, kernel=3, dilation=2)


def test_an_equal_padding_may_be_one_number() -> None:
    both = conv_rows(Band(4, 8), 16, kernel=3, padding=(1, 1))
    assert conv_rows(Band(4, 8), 16, kernel=3, padding=1) == both == (Band(4, 8), Halo(1, 1))


meshes = st.builds(Mesh, *[st.integers(1, 5)] * 3)


@given(meshes)
def test_coordinates_and_ranks_are_a_bijection(mesh: Mesh) -> None:
    at = [mesh.coordinates(rank) for rank in range(mesh.world_size)]
    assert len(set(at)) == mesh.world_size
    assert [mesh.rank(*coordinates) for coordinates in at] == list(range(mesh.world_size))
    assert at == sorted(at)


@given(meshes, st.sampled_from(["guidance", "ring", "ulysses"]))
def test_groups_of_an_axis_part_the_mesh(mesh: Mesh, axis: str) -> None:
    groups = {mesh.group(rank, axis) for rank in range(mesh.world_size)}
    assert sorted(rank for group in groups for rank in group) == list(range(mesh.world_size))
    assert {len(group) for group in groups} == {getattr(mesh, axis)}
    dim = ("guidance", "ring", "ulysses").index(axis)
    for group in groups:
        assert [mesh.coordinates(rank)[dim] for rank in group] == list(range(len(group)))


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([8, 1, Fraction(1, 2)]))
def test_a_band_scales_exactly_or_is_refused(start: int, rows: int, factor: Fraction | int) -> None:
    band = Band(start, start + rows)
    if factor == Fraction(1, 2) and (start % 2 or rows % 2):
        with pytest.raises(LayoutError, match="multiples of 2"):
            band.scaled(factor)
    else:
        assert band.scaled(factor) == Band(int(start * factor), int((start + rows) * factor))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Canvas(1, 0, 8),
        lambda: Band(3, 2),
        lambda: Band(-1, 2),
        lambda: Mesh(0, 1, 1),
        lambda: Mesh(2, 2, 2).coordinates(8),
        lambda: Mesh(2, 2, 2).rank(0, 2, 0),
        lambda: Mesh().group(0, "rows"),
    ],
)
def test_layouts_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(LayoutError):
        make()  # type: ignore[operator]


# ---- tiles


@given(tiled_sides())
def test_tiles_cover_a_side_and_share_enough(side: TiledSide) -> None:
    stride, rest = side.size - side.overlap, side.length - side.size
    assert side.starts[0] == 0
    assert side.starts[-1] == rest
    assert all(start % side.unit == 0 for start in side.starts)
    assert all(0 < b - a <= stride for a, b in pairwise(side.starts))
    assert len(side.starts) <= -(-rest // stride) + 2  # moved tiles are at most one more


@pytest.mark.parametrize(
    ("length", "size", "overlap", "unit"), [(20, 8, 8, 2), (20, 8, 3, 2), (21, 8, 2, 2)]
)
def test_tiles_that_do_not_fit_units_are_refused(
    length: int, size: int, overlap: int, unit: int
) -> None:
    with pytest.raises(LayoutError, match="the overlap is less than a tile, and all are multiples"):
        tile_starts(length, size, overlap, unit)
