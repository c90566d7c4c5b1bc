"""Attention in windows is the same on any bands, and costs and sends what its formulas say."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.attention import Window, Windows, window_attention, windowed_attention
from frieze.cluster.comm import Comm, axis_comms, phantom, run_threads
from frieze.cluster.layout import Band, LayoutError, Mesh, TokenGrid, cut
from tolerances import AMPLE, CONTROL, EXACT_FLOAT32, EXACT_FLOAT64

HEIGHT, WIDTH, HEADS, HEAD_DIM = 12, 8, 4, 8
BANDS = {
    1: (Band(0, 12),),
    2: (Band(0, 3), Band(3, 12)),
    3: (Band(0, 5), Band(5, 6), Band(6, 12)),
    4: (Band(0, 1), Band(1, 6), Band(6, 8), Band(8, 12)),
}
COVERS = {
    "shifted": Windows.product([range(2, 8), range(8, 14)], [range(1, 5), range(5, 9)], "wrap"),
    "cut": Windows.product(
        [range(-1, 5), range(2, 8), range(7, 13)], [range(4), range(1, 5), range(5, 9)]
    ),
    "zeros": Windows.product(
        [range(-1, 5), range(2, 8), range(7, 13)], [range(-1, 3), range(2, 6), range(4, 8)], "zeros"
    ),
    "interleaved": Windows.product(
        [range(i, 12, 3) for i in range(3)], [range(0, 8, 2), range(1, 8, 2)]
    ),
    "each its own": Windows(
        (
            Window(range(6), range(5)),
            Window(range(7), range(4, 8)),
            Window(range(5, 12), range(6)),
            Window(range(6, 12), range(3, 8)),
        )
    ),
}


def qkv(num_frames: int, num_text: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values of the canvas [B, H, T, rows, columns, D], then of the text."""
    generator = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        return torch.randn(2, HEADS, *shape, HEAD_DIM, generator=generator, dtype=torch.float64)

    canvas = [noise(num_frames, HEIGHT, WIDTH) for _ in range(3)]
    return [x.to(dtype) for x in (*canvas, noise(num_text), noise(num_text))]


def dense(windows: Windows, x: list[Tensor]) -> Tensor:
    """The definition, token by token: a softmax over each window's keys; then their mean."""
    q, k, v, k_text, v_text = x
    total, count = torch.zeros_like(q), torch.zeros(HEIGHT, WIDTH, 1, dtype=q.dtype)
    for window in windows.windows:
        rows, columns = list(window.rows), list(window.columns)
        if windows.edge == "wrap":
            rows, columns = [i % HEIGHT for i in rows], [i % WIDTH for i in columns]
        elif windows.edge == "cut":
            rows = [i for i in rows if 0 <= i < HEIGHT]
            columns = [i for i in columns if 0 <= i < WIDTH]
        inside = [(r, c) for r in rows for c in columns if 0 <= r < HEIGHT and 0 <= c < WIDTH]
        num_zeros = (len(rows) * len(columns) - len(inside)) * q.shape[2]
        r, c = (torch.tensor(i) for i in zip(*inside, strict=True))
        keys, values = (y[:, :, :, r, c].flatten(2, 3) for y in (k, v))
        zeros = keys.new_zeros(*keys.shape[:2], num_zeros, HEAD_DIM)
        out = F.scaled_dot_product_attention(
            q[:, :, :, r, c].flatten(2, 3),
            torch.cat((keys, zeros, k_text), 2),
            torch.cat((values, zeros, v_text), 2),
            scale=0.4,
        )
        total[:, :, :, r, c] += out.unflatten(2, (q.shape[2], -1))
        count[r, c] += 1
    return total / count


def of_rank(x: Tensor, band: Band) -> Tensor:
    return x[:, :, :, band.start : band.stop].flatten(2, 4)


def on_ranks(
    windows: Windows, x: list[Tensor], bands: tuple[Band, ...], mesh: Mesh | None = None
) -> Tensor:
    """The canvas that ranks of these bands compute together."""

    def rank(comm: Comm) -> Tensor:
        q, k, v = (of_rank(y, bands[comm.rank]) for y in x[:3])
        out = window_attention(
            *(q, k, v),
            comms=axis_comms(comm, mesh),
            grid=TokenGrid(x[0].shape[2], bands, WIDTH),
            windows=windows,
            scale=0.4,
            text=(x[3], x[4]) if x[3].shape[2] else None,
        )
        return out.unflatten(2, (x[0].shape[2], bands[comm.rank].rows, WIDTH))

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 3)


@pytest.mark.parametrize("cover", COVERS)
def test_any_bands_answer_as_the_definition_does(cover: str) -> None:
    """With and without text, of one frame and of three, stacked or one window at a time."""
    for num_frames, num_text in ((1, 0), (3, 5)):
        x = qkv(num_frames, num_text)
        expected = dense(COVERS[cover], x)
        for bands in BANDS.values():
            got = on_ranks(COVERS[cover], x, bands)
            assert float((got - expected).abs().max()) <= EXACT_FLOAT64, bands
    whole = Windows.product([range(HEIGHT)], [range(WIDTH)])
    assert float((dense(whole, x) - expected).abs().max()) > CONTROL


@pytest.mark.parametrize(
    "mesh", [Mesh(ulysses=4), Mesh(ring=2, ulysses=2), Mesh(ring=1, ulysses=3)]
)
@pytest.mark.parametrize("cover", COVERS)
def test_ulysses_groups_are_bands_of_their_own(cover: str, mesh: Mesh) -> None:
    """Several frames: a group's tokens come rank by rank, not frame by frame."""
    x = qkv(3, 5)
    got = on_ranks(COVERS[cover], x, BANDS[mesh.world_size], mesh)
    assert float((got - dense(COVERS[cover], x)).abs().max()) <= EXACT_FLOAT64


def test_fewer_heads_than_a_group_has_ranks_go_round_the_ring() -> None:
    x = [y[:, :3] for y in qkv(1, 2)]
    got = on_ranks(COVERS["cut"], x, BANDS[4], Mesh(ulysses=4))
    assert float((got - dense(COVERS["cut"], x)).abs().max()) <= EXACT_FLOAT64


def test_controls_rows_left_out_and_means_of_other_windows_would_show() -> None:
    x, bands = qkv(1, 0), BANDS[3]
    alone = torch.cat(
        [
            on_ranks(
                COVERS["cut"],
                [torch.where(rows_of(band), y, 0) if i in (1, 2) else y for i, y in enumerate(x)],
                bands,
            )[:, :, :, band.start : band.stop]
            for band in bands
        ],
        3,
    )
    assert float((alone - dense(COVERS["cut"], x)).abs().max()) > CONTROL
    zeros = Windows(COVERS["zeros"].windows, "cut")
    assert float((on_ranks(zeros, x, bands) - dense(COVERS["zeros"], x)).abs().max()) > CONTROL


def rows_of(band: Band) -> Tensor:
    inside = torch.zeros(1, 1, 1, HEIGHT, 1, 1, dtype=torch.bool)
    inside[:, :, :, band.start : band.stop] = True
    return inside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_are_float32(dtype: torch.dtype) -> None:
    """bfloat16 rounds an answer once for the kernel and once for the mean, however many windows."""
    x = qkv(1, 3, dtype)
    got = on_ranks(COVERS["cut"], x, BANDS[2])
    expected = dense(COVERS["cut"], [y.double() for y in x])
    assert got.dtype == dtype
    most = EXACT_FLOAT32 if dtype == torch.float32 else 2**-7
    assert float((got - expected).abs().max()) <= most * float(expected.abs().max())


def test_stacked_windows_give_what_single_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    x = qkv(2, 3)
    stacked = on_ranks(COVERS["cut"], x, BANDS[2])
    calls = counted(monkeypatch)
    monkeypatch.setattr(windowed_attention, "STACKED_QUERIES", 1)
    single = on_ranks(COVERS["cut"], x, BANDS[2])
    assert float((stacked - single).abs().max()) <= EXACT_FLOAT64
    assert {batch for *_, batch in calls} == {2}
    calls.clear()
    monkeypatch.setattr(windowed_attention, "STACKED_QUERIES", 10**6)
    on_ranks(COVERS["cut"], x, BANDS[2])
    assert {batch for *_, batch in calls} == {2, 4}  # two of three are as wide


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(queries, keys, batch) of every call of the kernel from now on."""
    module, calls, lock = windowed_attention, [], threading.Lock()
    attend = module.attend

    def counting(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        with lock:
            calls.append((q.shape[2], k.shape[2], q.shape[0]))
        return attend(q, k, v, **options)

    monkeypatch.setattr(module, "attend", counting)
    return calls


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_flops_and_bytes_are_those_of_the_integers(
    cover: str, num_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O(N x window): each token's query meets its windows' keys once, whatever the bands."""
    windows, bands, x = COVERS[cover], BANDS[num_ranks], qkv(2, 0)
    calls = counted(monkeypatch)
    sent = run_threads(
        lambda comm: (
            window_attention(
                *(of_rank(y, bands[comm.rank]) for y in x[:3]),
                comms=axis_comms(comm),
                grid=TokenGrid(2, bands, WIDTH),
                windows=windows,
            ),
            comm.num_bytes_sent,
        )[1],
        num_ranks,
        timeout=AMPLE,
    )
    pairs = sum(q * k * batch for q, k, batch in calls)
    assert pairs == 2 * 2**2 * sum(windows.num_pairs(band, HEIGHT, WIDTH) for band in bands)
    row = 2 * 2 * HEADS * 2 * WIDTH * HEAD_DIM * 8  # keys and values of a batch of 2, 2 frames
    away = sum(
        len([row for row in part.rows_needed(band, HEIGHT) if not band.start <= row < band.stop])
        for band in bands
        for part in windows.exchanges(HEIGHT)
    )
    assert sum(sent) == away * row


def test_a_phantom_rank_holds_no_values() -> None:
    """What a planner traces: one rank of three on meta tensors."""
    x = [y.to("meta") for y in qkv(2, 3)]
    bands = BANDS[3]
    for windows in COVERS.values():
        out = window_attention(
            *(of_rank(y, bands[1]) for y in x[:3]),
            comms=axis_comms(phantom(1, 3)),
            grid=TokenGrid(2, bands, WIDTH),
            windows=windows,
            text=(x[3], x[4]),
        )
        assert out.shape == of_rank(x[0], bands[1]).shape


def on_a_process(comm: Comm) -> float:
    """Largest difference of one rank's answers from the definition."""
    bands, x = BANDS[comm.size], qkv(2, 3)
    worst = 0.0
    for windows in COVERS.values():
        got = window_attention(
            *(of_rank(y, bands[comm.rank]) for y in x[:3]),
            comms=axis_comms(comm),
            grid=TokenGrid(2, bands, WIDTH),
            windows=windows,
            scale=0.4,
            text=(x[3], x[4]),
        )
        expected = of_rank(dense(windows, x), bands[comm.rank])
        worst = max(worst, float((got - expected).abs().max()))
    return worst


def test_processes_answer_as_the_definition_does(gloo_world: Any) -> None:
    assert max(gloo_world(3, on_a_process)) <= EXACT_FLOAT64


def test_a_token_without_a_window_is_named() -> None:
    gap = Windows.product([range(4), range(5, HEIGHT)], [range(WIDTH)])
    with pytest.raises(LayoutError, match="row 4, column 0 of 12 x 8 tokens lies in no window"):
        on_ranks(gap, qkv(1, 0), (Band(0, HEIGHT),))


def test_shares_of_full_attention_are_the_published_ones() -> None:
    """Shifted 1/4; trained windows (2s-1)^2 / s^4, a little less for their edges; s x s 1/s^2."""
    side = 64
    half = side // 2
    quarters = [range(8, 8 + half), range(8 + half, 8 + side)]
    shares = {"shifted": Windows.product(quarters, quarters, "wrap")}
    for s in (2, 4, 8):
        window = side // s
        spans = [range(i * window // 2, i * window // 2 + window) for i in range(2 * s - 1)]
        shares[f"trained {s}"] = Windows.product(spans, spans)
        shares[f"interleaved {s}"] = Windows.product(*[[range(i, side, s) for i in range(s)]] * 2)
    for num_ranks in (1, 2, 3, 4):
        bands = cut(side, num_ranks)
        found = {
            name: sum(windows.num_pairs(band, side, side) for band in bands) / side**4
            for name, windows in shares.items()
        }
        assert found["shifted"] == 1 / 4
        for s in (2, 4, 8):
            assert found[f"trained {s}"] == (2 * s - 1) ** 2 / s**4
            assert found[f"interleaved {s}"] == 1 / s**2
