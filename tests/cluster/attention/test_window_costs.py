"""What published windows cost beside full attention, counted as it runs: FLOPs, and bytes sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from frieze.cluster.attention import Windows, canvas_attention, window_attention
from frieze.cluster.comm import AxisComms, Comm, axis_comms, run_threads
from frieze.cluster.layout import Band, TokenGrid, cut
from frieze.kernels.flop_count import flop_count
from frieze.renderer.extrapolation.windows import (
    interleaved_windows,
    seeded,
    shifted_windows,
    trained_windows,
)
from tolerances import AMPLE

SIDE, HEAD_DIM = 64, 2
RANKS = (1, 2, 3, 4)


class Share(NamedTuple):
    """Of full attention, on 1, 2, 3 and 4 ranks: lowest and highest."""

    flops: tuple[float, float]
    sent: tuple[tuple[float, float], ...]  # of the ring's bytes, on 2, 3 and 4


def trained(times: int, released: bool = False) -> Windows:
    window = (SIDE // times,) * 2
    if released:
        draw = seeded("2")
        return trained_windows(SIDE, SIDE, window, draw, edge="zeros", separable=False)
    return trained_windows(SIDE, SIDE, window, seeded("2"))


def exactly(*shares: float) -> tuple[tuple[float, float], ...]:
    return tuple((share, share) for share in shares)


# Shifted windows send what a band's two halves lack. Windows of the trained size overlap and move:
# by how much is drawn. Of interleaved ones each needs rows of every band.
CASES = {
    "shifted 0": (shifted_windows(SIDE, SIDE, 0), Share((1 / 4, 1 / 4), exactly(0, 1 / 2, 1 / 3))),
    "shifted 1": (shifted_windows(SIDE, SIDE, 1), Share((1 / 4, 1 / 4), exactly(1, 3 / 4, 2 / 3))),
    "shifted 2": (shifted_windows(SIDE, SIDE, 2), Share((1 / 4, 1 / 4), exactly(1, 3 / 4, 1 / 3))),
    "trained 2": (trained(2), Share((0.45, 0.57), ((0.4, 0.62), (0.6, 1.0), (0.4, 0.9)))),
    "released 2": (trained(2, True), Share((0.45, 0.57), ((0.4, 0.65), (0.6, 1.0), (0.4, 0.9)))),
    "trained 4": (trained(4), Share((0.17, 0.192), ((0.2, 0.5), (0.2, 0.6), (0.2, 0.6)))),
    "trained 8": (trained(8), Share((0.05, 0.056), ((0.1, 0.23), (0.1, 0.3), (0.1, 0.3)))),
    "interleaved 2": (
        interleaved_windows(SIDE, SIDE, (2, 2)),
        Share((1 / 4, 1 / 4), exactly(1, 1, 1)),
    ),
    "interleaved 4": (
        interleaved_windows(SIDE, SIDE, (4, 4)),
        Share((1 / 16, 1 / 16), exactly(1, 1, 1)),
    ),
}

Attention = Callable[[torch.Tensor, AxisComms, list[Band]], torch.Tensor]


def full(x: torch.Tensor, comms: AxisComms, bands: list[Band]) -> torch.Tensor:
    return canvas_attention(x, x, x, comms=comms, tokens=[band.rows * SIDE for band in bands])


def in_windows(windows: Windows) -> Attention:
    def attention(x: torch.Tensor, comms: AxisComms, bands: list[Band]) -> torch.Tensor:
        return window_attention(
            x, x, x, comms=comms, grid=TokenGrid(1, bands, SIDE), windows=windows
        )

    return attention


def counted(attention: Attention, num_ranks: int) -> tuple[int, int]:
    """FLOPs and bytes of all ranks together."""
    bands = cut(SIDE, num_ranks)

    def rank(comm: Comm) -> tuple[int, int]:
        x = torch.zeros(1, 1, bands[comm.rank].rows * SIDE, HEAD_DIM)
        with flop_count() as count:
            attention(x, axis_comms(comm), bands)
        return count.total, comm.num_bytes_sent

    found = run_threads(rank, num_ranks, timeout=AMPLE)
    return sum(flops for flops, _ in found), sum(sent for _, sent in found)


def shares(attention: Attention, whole: dict[int, tuple[int, int]]) -> tuple[float, list[float]]:
    """Of FLOPs, the same on any ranks, and of bytes on 2, 3 and 4."""
    found = {num_ranks: counted(attention, num_ranks) for num_ranks in RANKS}
    (flops,) = {flops / whole[num_ranks][0] for num_ranks, (flops, _) in found.items()}
    return flops, [found[num_ranks][1] / whole[num_ranks][1] for num_ranks in RANKS[1:]]


@pytest.fixture(scope="module")
def whole() -> dict[int, tuple[int, int]]:
    """Full attention's: 4 N^2 D FLOPs, and every band's keys and values to every other."""
    found = {num_ranks: counted(full, num_ranks) for num_ranks in RANKS}
    for num_ranks, (flops, sent) in found.items():
        assert flops == 4 * SIDE**4 * HEAD_DIM
        assert sent == 2 * 4 * HEAD_DIM * SIDE**2 * (num_ranks - 1)
    return found


def is_within(found: tuple[float, list[float]], share: Share) -> bool:
    pairs = [(found[0], share.flops), *zip(found[1], share.sent, strict=True)]
    return all(low - 1e-9 <= each <= high + 1e-9 for each, (low, high) in pairs)


@pytest.mark.parametrize("name", CASES)
def test_windows_cost_and_send_their_share_of_full_attention(
    name: str, whole: dict[int, tuple[int, int]]
) -> None:
    windows, share = CASES[name]
    found = shares(in_windows(windows), whole)
    assert is_within(found, share), found


def test_control_one_window_over_the_canvas_costs_all_of_it(
    whole: dict[int, tuple[int, int]],
) -> None:
    one = shares(in_windows(Windows.product([range(SIDE)], [range(SIDE)])), whole)
    assert one == (1, [1, 1, 1])
    assert not any(is_within(one, share) for _, share in CASES.values())
