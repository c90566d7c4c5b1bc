"""Enlarging a canvas band by band equals enlarging it whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from frieze.cluster.layout import Band, cut
from frieze.renderer.worker.upsampling import (
    Interpolation,
    enlarge,
    enlarged_around,
    source_rows,
)
from tolerances import CONTROL


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(4, 12),
    columns=st.integers(3, 9),
    factor=st.sampled_from([(2, 1), (3, 2), (4, 1)]),
    parts=st.integers(1, 4),
    is_linear=st.booleans(),
)
def test_bands_equal_the_whole_canvas(
    rows: int, columns: int, factor: tuple[int, int], parts: int, is_linear: bool
) -> None:
    """By linear interpolation a clip's as CineScale's over frames, rows and columns."""
    torch.manual_seed(rows * columns)
    mode: Interpolation = "bilinear" if is_linear else "bicubic"
    small_CTHW = torch.randn(3, 2 if is_linear else 1, rows, columns)
    target = (rows * factor[0] // factor[1], columns * factor[0] // factor[1])
    if is_linear:
        whole = F.interpolate(small_CTHW[None], size=(2, *target), mode="trilinear")[0]
    else:
        whole = F.interpolate(small_CTHW.transpose(0, 1), size=target, mode="bicubic")
        whole = whole.transpose(0, 1)
    pieces = []
    for band in cut(target[0], parts):
        held = source_rows(band, rows, target[0], mode)
        source = small_CTHW[:, :, held.start : held.stop]
        pieces.append(enlarge(source, held, (rows, columns), band, target, mode))
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_control_a_band_enlarged_alone_is_wrong_at_its_border() -> None:
    torch.manual_seed(0)
    small = torch.randn(1, 3, 8, 8)
    whole = F.interpolate(small, size=(16, 16), mode="bicubic")[:, :, :8]
    alone = F.interpolate(small[:, :, :4], size=(8, 16), mode="bicubic")
    assert (whole - alone).abs().max() > CONTROL


def test_a_band_reads_only_the_rows_it_needs() -> None:
    assert source_rows(Band(0, 8), 64, 128) == Band(0, 6)
    assert source_rows(Band(60, 68), 64, 128) == Band(28, 36)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_where_sides_meet_what_is_rolled_comes_out_rolled(mode: Interpolation) -> None:
    """And inside it is as elsewhere; rows are asked for in runs, at both ends for the first."""
    source, target, far = (6, 5), (12, 15), 4
    x = torch.randn(2, 1, *source, generator=torch.Generator().manual_seed(2))
    asked: list[Band] = []

    def made(x_CTHW: torch.Tensor, band: Band, wraps: str) -> torch.Tensor:
        def read(rows: Band) -> torch.Tensor:
            asked.append(rows)
            return x_CTHW[..., rows.start : rows.stop, :]

        return enlarged_around(read, source, band, target, mode, wraps)

    whole = Band(0, target[0])
    for wraps, dims in {"x": (-1,), "y": (-2,), "xy": (-2, -1)}.items():
        rolled = x.roll((1,) * len(dims), dims)
        expected = made(x, whole, wraps)
        moved = expected.roll([target[dim] // source[dim] for dim in dims], dims)
        assert float((made(rolled, whole, wraps) - moved).abs().max()) <= 1e-5
        plain = enlarge(x, Band(0, source[0]), source, whole, target, mode)
        assert float((expected - plain)[..., far:-far, far:-far].abs().max()) <= 1e-5
        assert float((expected - plain).abs().max()) > 0.01, "control"
    asked.clear()
    part = made(x, Band(0, 2), "xy")
    assert float((part - expected[..., :2, :]).abs().max()) <= 1e-5
    assert asked == [Band(0, 3), Band(4, 6)] if mode == "bicubic" else [Band(0, 2), Band(5, 6)]
