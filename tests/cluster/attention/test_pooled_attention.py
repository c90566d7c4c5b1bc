"""Attention over pooled context is the same on any bands, and sends what its formula says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.attention import (
    AttentionShape,
    Context,
    PooledContext,
    PooledDim,
    canvas_attention,
    canvas_entropy,
    pooled_context_attention,
    pooled_entropy,
    shaped_attention,
)
from frieze.cluster.comm import Comm, axis_comms, phantom, run_threads
from frieze.cluster.layout import Band, Mesh, TokenGrid
from frieze.kernels.flop_count import flop_count
from tolerances import AMPLE, CONTROL, EXACT_FLOAT32, EXACT_FLOAT64

HEADS, HEAD_DIM, SCALE = 4, 8, 0.4
BATCH = 2


@dataclass(frozen=True)
class Case:
    """A canvas, and what its queries see of it."""

    pooled: PooledContext
    frames: int = 1
    text: int = 5

    @property
    def rows(self) -> int:
        return self.pooled.rows.length

    @property
    def columns(self) -> int:
        return self.pooled.columns.length


CASES = {
    "whole": Case(PooledContext(PooledDim.even(12, 6, 6), PooledDim.even(8, 4, 4))),
    "uneven": Case(PooledContext(PooledDim.even(13, 8, 8), PooledDim.even(11, 8, 8)), text=0),
    "longer": Case(PooledContext(PooledDim.even(12, 3, 4), PooledDim.even(10, 8, 4))),
    "frames": Case(PooledContext(PooledDim.even(12, 5, 5), PooledDim.even(7, 4, 4)), frames=3),
    "one column": Case(PooledContext(PooledDim.even(12, 4, 5), PooledDim.even(4, 4, 4))),
}
CUTS = {
    1: ((1.0,),),
    2: ((0.5, 1.0), (0.25, 1.0)),
    3: ((0.34, 0.42, 1.0), (0.5, 0.75, 1.0)),
    4: ((0.09, 0.5, 0.67, 1.0),),
}


def bands_of(case: Case, num_ranks: int) -> list[tuple[Band, ...]]:
    found = []
    for shares in CUTS[num_ranks]:
        edges = [0, *(round(case.rows * share) for share in shares)]
        found.append(tuple(map(Band, edges, edges[1:])))
    return found


def qkv(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Of the canvas [B, H, T, rows, columns, D], then of its text [B, H, K, D]."""
    generator = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        shape = (BATCH, HEADS, *shape, HEAD_DIM)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    canvas = [noise(case.frames, case.rows, case.columns) for _ in range(3)]
    return [*canvas, *(noise(case.text) for _ in range(3))]


def block_of(dim: PooledDim) -> list[int]:
    return [block for block, size in enumerate(dim.sizes) for _ in range(size)]


def window_of(dim: PooledDim) -> list[int]:
    blocks = [window for window, span in enumerate(dim.spans) for _ in span]
    return [blocks[block] for block in block_of(dim)]


def dense(case: Case, x: list[Tensor], log_counts: bool = True) -> tuple[Tensor, Tensor]:
    """The definition, over all pairs under a mask: answers of image tokens, and their entropies."""
    q, k, v, _, k_text, v_text = x
    size = (case.frames, case.rows, case.columns)
    row, column = (torch.tensor(block_of(dim)) for dim in (case.pooled.rows, case.pooled.columns))
    num_columns = len(case.pooled.columns.sizes)
    blocks = (row[:, None] * num_columns + column).expand(size)
    blocks = blocks + case.pooled.num_blocks * torch.arange(case.frames)[:, None, None]
    down, across = (torch.tensor(window_of(dim)) for dim in (case.pooled.rows, case.pooled.columns))
    windows = (down[:, None] * len(case.pooled.columns.spans) + across).expand(size).flatten()
    hot = torch.nn.functional.one_hot(blocks.flatten()).to(q.dtype)
    count = hot.sum(0)
    flat_k, flat_v = k.flatten(2, 4), v.flatten(2, 4)
    k_mean, v_mean = (torch.einsum("bhsd,sm->bhmd", y, hot / count) for y in (flat_k, flat_v))
    window_of_block = (hot * windows[:, None]).sum(0) / count  # a block lies in one window
    is_inside = windows[:, None] == windows
    is_outside = windows[:, None] != window_of_block
    keys, values = torch.cat((flat_k, k_mean, k_text), 2), torch.cat((flat_v, v_mean, v_text), 2)
    seen = torch.cat((is_inside, is_outside, torch.ones(len(windows), case.text).bool()), 1)
    num = torch.cat((torch.ones(len(windows)), count, torch.ones(case.text))).to(q.dtype)
    logit = SCALE * q.flatten(2, 4) @ keys.transpose(2, 3)
    logit = logit.masked_fill(~seen, -torch.inf) + (num.log() if log_counts else 0)
    p = logit.softmax(-1)
    entropy = -(torch.xlogy(p, p) - p * num.log()).sum(-1)
    return (p @ values).unflatten(2, size), entropy


def joint(case: Case, x: list[Tensor], band: Band, side: str) -> tuple[list[Tensor], Context]:
    """This band's queries, keys and values with the text before or behind them."""
    context = Context(case.text, "front" if side == "front" else "rear")
    own = [y[:, :, :, band.start : band.stop].flatten(2, 4) for y in x[:3]]
    return [context.join(text, y) for text, y in zip(x[3:], own, strict=True)], context


def on_ranks(
    case: Case, x: list[Tensor], bands: tuple[Band, ...], mesh: Mesh | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The canvas' answers, the text's, and the mean entropy that all ranks find."""

    def rank(comm: Comm) -> tuple[Tensor, Tensor, Tensor]:
        band = bands[comm.rank]
        own, context = joint(case, x, band, "rear" if comm.size == 2 else "front")
        place: dict[str, Any] = {
            "comms": axis_comms(comm, mesh),
            "scale": SCALE,
            "context": context,
            "grid": TokenGrid(case.frames, bands, case.columns),
        }
        shape = AttentionShape.of_pooled(case.pooled)
        assert shape is not None
        text, image = context.split(shaped_attention(*own, shape=shape, **place))
        entropy = pooled_entropy(*own[:2], pooled=case.pooled, **place)
        return image.unflatten(2, (case.frames, band.rows, case.columns)), text, entropy

    images, texts, entropies = zip(*run_threads(rank, len(bands), timeout=AMPLE), strict=True)
    assert all(torch.equal(each, texts[0]) for each in texts)
    assert all(torch.equal(each, entropies[0]) for each in entropies)
    return torch.cat(images, 3), texts[0], entropies[0]


def whole(case: Case, x: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the text is answered by the whole canvas, and the mean entropy of all queries."""
    own, context = joint(case, x, Band(0, case.rows), "front")
    comms, tokens = axis_comms(run_threads(lambda comm: comm, 1, timeout=AMPLE)[0]), None
    tokens = [case.frames * case.rows * case.columns]
    out = canvas_attention(*own, comms=comms, tokens=tokens, scale=SCALE, context=context)
    logits = SCALE * own[0][:, :, : case.text] @ own[1].transpose(2, 3)
    p = logits.softmax(-1)
    of_text = -torch.xlogy(p, p).sum(-1)
    entropy = torch.cat((of_text, dense(case, x)[1]), -1).mean(-1)
    return context.split(out)[0], entropy


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max()) if expected.numel() else 0.0


@pytest.mark.parametrize("name", CASES)
def test_any_bands_answer_and_measure_as_the_definition_does(name: str) -> None:
    case = CASES[name]
    x = qkv(case)
    expected = (dense(case, x)[0], *whole(case, x))
    for num_ranks in (1, 2, 3):
        for bands in bands_of(case, num_ranks):
            got = on_ranks(case, x, bands)
            worst = max(map(distance, got, expected))
            assert worst <= EXACT_FLOAT64, (bands, worst)


@pytest.mark.parametrize("mesh", [Mesh(ulysses=4), Mesh(ring=2, ulysses=2), Mesh(ulysses=3)])
@pytest.mark.parametrize("name", ["uneven", "frames"])
def test_so_do_ulysses_groups(name: str, mesh: Mesh) -> None:
    case = CASES[name]
    x = qkv(case)
    expected = (dense(case, x)[0], *whole(case, x))
    (bands, *_) = bands_of(case, mesh.world_size)
    assert max(map(distance, on_ranks(case, x, bands, mesh), expected)) <= EXACT_FLOAT64


def test_controls_counts_left_out_and_blocks_cut_at_bands_would_show() -> None:
    case = CASES["uneven"]
    x, (_, bands) = qkv(case), bands_of(case, 3)
    got, _, entropy = on_ranks(case, x, bands)
    assert distance(got, dense(case, x, log_counts=False)[0]) > CONTROL
    alone = torch.cat(
        [
            on_ranks(case, [torch.where(rows_of(case, band), y, 0) for y in x[:3]] + x[3:], bands)[
                0
            ][:, :, :, band.start : band.stop]
            for band in bands
        ],
        3,
    )
    assert distance(alone, got) > CONTROL
    own, context = joint(case, x, Band(0, case.rows), "front")
    comms = axis_comms(run_threads(lambda comm: comm, 1, timeout=AMPLE)[0])
    tokens = [case.rows * case.columns]
    full = canvas_entropy(*own[:2], comms=comms, tokens=tokens, scale=SCALE, context=context)
    assert distance(entropy, full) > CONTROL


def rows_of(case: Case, band: Band) -> Tensor:
    inside = torch.zeros(1, 1, 1, case.rows, 1, 1, dtype=torch.bool)
    inside[:, :, :, band.start : band.stop] = True
    return inside


def test_keys_that_are_alike_within_blocks_lose_nothing() -> None:
    """What full attention answers and measures: a block of n such keys is one, counted n times."""
    case = CASES["uneven"]
    q, k, v, *text = qkv(case)

    def alike(y: Tensor) -> Tensor:
        at = [block_of(dim) for dim in (case.pooled.rows, case.pooled.columns)]
        return y[:, :, :, at[0]][:, :, :, :, at[1]]

    x = [q, alike(k), alike(v), *text]
    own, context = joint(case, x, Band(0, case.rows), "front")
    comms = axis_comms(run_threads(lambda comm: comm, 1, timeout=AMPLE)[0])
    place: dict[str, Any] = {"comms": comms, "tokens": [case.rows * case.columns], "scale": SCALE}
    got, _, entropy = on_ranks(case, x, bands_of(case, 3)[0])
    full = canvas_attention(*own, context=context, **place)
    assert distance(got.flatten(2, 4), full) <= EXACT_FLOAT64
    measured = canvas_entropy(*own[:2], context=context, **place)
    assert distance(entropy, measured) <= EXACT_FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_are_as_wide_as_keys_and_merges_float32(dtype: torch.dtype) -> None:
    case = CASES["longer"]
    x = qkv(case, dtype)
    got, *_ = on_ranks(case, x, bands_of(case, 3)[0])
    expected, _ = dense(case, [y.double() for y in x])
    assert got.dtype == dtype
    most = EXACT_FLOAT32 if dtype == torch.float32 else 2**-6  # a mean, a product, an answer
    assert distance(got, expected) <= most * float(expected.abs().max())


def counted(case: Case, bands: tuple[Band, ...]) -> tuple[int, int]:
    """FLOPs and bytes of all ranks together, without text, in float64."""

    def rank(comm: Comm) -> tuple[int, int]:
        band = bands[comm.rank]
        x = torch.zeros(1, 1, case.frames * band.rows * case.columns, 2, dtype=torch.float64)
        place: dict[str, Any] = {"grid": TokenGrid(case.frames, bands, case.columns)}
        with flop_count() as count:
            pooled_context_attention(x, x, x, comms=axis_comms(comm), pooled=case.pooled, **place)
        return count.total, comm.num_bytes_sent

    found = run_threads(rank, len(bands), timeout=AMPLE)
    return sum(flops for flops, _ in found), sum(sent for _, sent in found)


@pytest.mark.parametrize("num_frames", [1, 2])
def test_bands_cut_at_windows_send_pooled_tokens_and_no_others(num_frames: int) -> None:
    pooled = PooledContext(PooledDim.even(32, 8, 8), PooledDim.even(16, 8, 8))
    case = Case(pooled, num_frames)
    token = 2 * 2 * 8 * num_frames  # keys and values of 2 channels
    share = pooled.num_pairs(Band(0, 32)) / 512**2
    assert share == (64 + 64 - 16 / 2) / 512  # its window and all blocks but the window's 2 x 4
    for edges in ((0, 32), (0, 8, 32), (0, 8, 24, 32)):
        bands = tuple(map(Band, edges, edges[1:]))
        flops, sent = counted(case, bands)
        assert flops == share * (512 * num_frames) ** 2 * 4 * 2
        assert sent == (len(bands) - 1) * 64 * token


def test_other_cuts_send_sums_of_blocks_and_rows_of_windows_too() -> None:
    """6 | 26 of 32 rows: one block of 4 rows is on both bands, and so is the first window."""
    case = Case(PooledContext(PooledDim.even(32, 8, 8), PooledDim.even(16, 8, 8)))
    flops, sent = counted(case, (Band(0, 6), Band(6, 32)))
    whole, _ = counted(case, (Band(0, 32),))
    assert flops == whole
    token = 2 * 2 * 8
    assert sent == token * (7 * 8 + 2 * 8 + (6 + 2) * 16)


def test_a_phantom_rank_holds_no_values() -> None:
    case = CASES["frames"]
    (bands, *_) = bands_of(case, 3)
    own, context = joint(case, [y.to("meta") for y in qkv(case)], bands[1], "front")
    place: dict[str, Any] = {"grid": TokenGrid(case.frames, bands, case.columns)}
    comms = axis_comms(phantom(1, 3))
    shape = AttentionShape.of_pooled(case.pooled)
    assert shape is not None
    out = shaped_attention(*own, comms=comms, shape=shape, context=context, **place)
    assert out.shape == own[0].shape
    entropy = pooled_entropy(*own[:2], comms=comms, pooled=case.pooled, context=context, **place)
    assert entropy.shape == (BATCH, HEADS)


def on_a_process(comm: Comm) -> float:
    case = CASES["frames"]
    x = qkv(case)
    bands = bands_of(case, comm.size)[0]
    own, context = joint(case, x, bands[comm.rank], "front")
    shape = AttentionShape.of_pooled(case.pooled)
    assert shape is not None
    got = shaped_attention(
        *own,
        comms=axis_comms(comm),
        grid=TokenGrid(case.frames, bands, case.columns),
        shape=shape,
        scale=SCALE,
        context=context,
    )
    band = bands[comm.rank]
    expected = dense(case, x)[0][:, :, :, band.start : band.stop].flatten(2, 4)
    return distance(context.split(got)[1], expected)


@pytest.mark.slow
def test_processes_answer_as_the_definition_does(gloo_world: Any) -> None:
    assert max(gloo_world(3, on_a_process)) <= EXACT_FLOAT64


def test_what_one_query_asks_is_two_windows_at_most() -> None:
    """T^2 + (N - T^2) / r^2 <= 2 T^2: linear in the pixels; at 8 times the side less than 1/32."""
    window = 64
    for ratio, most in ((2, 0.44), (4, 0.122), (8, 1 / 32)):
        side = window * ratio
        dim = PooledDim.even(side, window, window)
        pooled = PooledContext(dim, dim)
        pairs = pooled.num_pairs(Band(0, side))
        keys = window**2 + (side**2 - window**2) / ratio**2
        assert pairs == side**2 * keys
        assert keys <= 2 * window**2
        assert pairs / side**4 <= most
        assert math.isclose(pairs / side**2, keys)
