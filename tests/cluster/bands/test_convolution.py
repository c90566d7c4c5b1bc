"""A convolution borrows the rows it reads, and padding is a row in waiting."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.cluster.bands import BandError, BandMode
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band
from support.banded import (
    BANDS,
    WIDTH,
    canvas,
    error,
    refused,
    rows_of,
    weight_3x3,
)
from tolerances import EXACT_FLOAT64


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.sampled_from([1, 2, 4]),
    dilation=st.integers(1, 2),
    own=st.integers(0, 2),
    before=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    num_dims=st.sampled_from([2, 3]),
    groups=st.sampled_from([1, 2]),
)
def test_convolutions_match_the_whole_canvas(
    kernel: int,
    stride: int,
    dilation: int,
    own: int,
    before: tuple[int, int],
    num_dims: int,
    groups: int,
) -> None:
    reach = dilation * (kernel - 1)
    made = (24 + 2 * own + sum(before) - reach - 1) // stride + 1
    assume(made == Fraction(24, stride))  # heights that keep bands aligned
    above = own + before[0]
    assume(max(above, reach + 1 - stride - above) <= 4)  # the shortest band can lend as many rows
    conv = (F.conv2d, F.conv3d)[num_dims - 2]
    frames = (3,) if num_dims == 3 else ()
    x = canvas(2, 4, *frames)
    weight = torch.randn(6, 4 // groups, *[2 for _ in frames], kernel, 3, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64)
    strides, dilations = (*[1 for _ in frames], stride, 2), (*[1 for _ in frames], dilation, 1)

    def function(x: Tensor) -> Tensor:
        x = F.pad(x, (1, 0, *before))
        padding = (*[1 for _ in frames], own, 1)
        return conv(x, weight, bias, strides, padding, dilations, groups)

    assert error(function, x) <= EXACT_FLOAT64


def test_padding_moves_no_bytes_and_takes_no_memory() -> None:
    def rank(comm: Comm) -> tuple[int, int, torch.Size]:
        with BandMode(comm, BANDS):
            padded = F.pad(rows_of(canvas(1, 4), BANDS[comm.rank]), (1, 1, 1, 1))
            return comm.num_bytes_sent, padded.untyped_storage().nbytes(), padded.shape

    sent, stored, shape = run_threads(rank, 3)[1]
    assert (sent, stored, shape) == (0, 8, (1, 4, 14, WIDTH + 2))


def test_padded_rows_may_be_cast_on_their_way_into_a_convolution() -> None:
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        padded = F.pad(x.float(), (1, 1, 1, 1)).to(torch.float64).contiguous()
        assert padded.dim() == 4
        return F.conv2d(padded, weight)

    assert error(function, canvas(1, 4).float().double()) <= EXACT_FLOAT64


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x * 2,
        lambda x: F.silu(x, inplace=True),
        lambda x: F.group_norm(x, 2),
        lambda x: x[:, :, 1:],
        lambda x: torch.cat([x, x], 1),
        lambda x: F.pad(x, (0, 0, 1, 1)),
        lambda x: x.mean((2, 3)),
        lambda x: x.__setitem__(0, 0.0),
        lambda x: F.max_pool2d(x, 2),
    ],
)
def test_padded_rows_feed_nothing_but_a_convolution(use: Callable[[Tensor], Any]) -> None:
    refused(lambda x: use(F.pad(x, (1, 1, 1, 1))), canvas(1, 4), "only a convolution borrows")


MISALIGNED = (Band(0, 3), Band(3, 24))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(x, weight_3x3(), stride=2, padding=1),
        lambda x: F.conv2d(x, weight_3x3()[..., :2, :2], stride=2),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.interpolate(x, scale_factor=0.5),
        lambda x: F.interpolate(x, scale_factor=1.5),
    ],
)
def test_misaligned_bands_raise_on_every_rank(function: Callable[[Tensor], Tensor]) -> None:
    for rank in range(2):
        comm = run_threads(lambda c: c, 2)[rank]
        with (
            pytest.raises(BandError, match=r"band \[0, 3\).*cut the canvas at multiples of 2"),
            BandMode(comm, MISALIGNED),
        ):
            function(rows_of(canvas(1, 4), MISALIGNED[rank]))


def test_a_halo_taller_than_a_band_raises() -> None:
    weight = torch.ones(4, 4, 7, 3, dtype=torch.float64)
    bands = (Band(0, 2), Band(2, 24))
    refused(
        lambda x: F.conv2d(x, weight, padding=(3, 1)),
        canvas(1, 4),
        "borrows 3 rows, but the shortest band has 2.*fewer ranks",
        bands=bands,
    )
