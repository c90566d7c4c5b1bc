"""Attention over a mesh equals attention on one rank, and moves the bytes it should."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.cluster.attention import Context, canvas_attention, sequence_parallel
from frieze.cluster.comm import Comm, Like, Pending, axis_comms, run_threads
from frieze.cluster.layout import Mesh
from tolerances import CONTROL, EXACT_FLOAT64

HEAD_DIM = 8


def qkv(num_heads: int, num_tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (3, 2, num_heads, num_tokens, HEAD_DIM)
    return list((2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))


def runs(tokens: list[int], num_text: int, side: str) -> list[list[int]]:
    """Indices of each rank's joint sequence in the whole one, text before or after the image."""
    total = sum(tokens)
    text = list(range(num_text)) if side == "front" else list(range(total, total + num_text))
    start = num_text if side == "front" else 0
    found = []
    for count in tokens:
        image = list(range(start, start + count))
        found.append(text + image if side == "front" else image + text)
        start += count
    return found


def on_rank(comm: Comm, mesh: Mesh, whole: list[Tensor], own: list[list[int]], **k: Any) -> Tensor:
    comms = axis_comms(comm, mesh)
    q, k_, v = (x[:, :, own[comms.world.rank]] for x in whole)
    return canvas_attention(q, k_, v, comms=comms, **k)


def attention_of_ranks(
    mesh: Mesh,
    tokens: list[int],
    num_heads: int,
    context: Context | None = None,
    dtype: torch.dtype = torch.float64,
    scale: float | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """(what each rank got, what it should have got)."""
    num_text, side = (context.num_tokens, context.side) if context else (0, "front")
    whole = qkv(num_heads, sum(tokens) + num_text, dtype)
    own = runs(tokens, num_text, side)
    outs = run_threads(
        lambda comm: on_rank(comm, mesh, whole, own, tokens=tokens, scale=scale, context=context),
        mesh.world_size,
    )
    expected = F.scaled_dot_product_attention(*(x.double() for x in whole), scale=scale)
    return outs, [expected[:, :, indices] for indices in own]


def worst(outs: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(outs, expected, strict=True))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Mesh, list[int], int, Context | None]:
    mesh = Mesh(ring=draw(st.integers(1, 3)), ulysses=draw(st.integers(1, 3)))
    tokens = [draw(st.integers(1, 9)) for _ in range(mesh.world_size)]
    num_heads = draw(st.integers(1, 5))
    side = draw(st.sampled_from(["front", "rear", None]))
    return mesh, tokens, num_heads, side and Context(draw(st.integers(1, 5)), side)


@settings(max_examples=30, deadline=None)
@given(layout=layouts())
def test_any_mesh_any_heads_any_tokens_match_one_rank(
    layout: tuple[Mesh, list[int], int, Context | None],
) -> None:
    assert worst(*attention_of_ranks(*layout)) <= EXACT_FLOAT64


def test_text_joined_twice_would_show() -> None:
    """The control: a text key counted on every rank is a larger error than the tolerance."""
    q, k, v = qkv(2, 12)
    doubled = [torch.cat((x, x[:, :, :3]), dim=2) for x in (k, v)]
    expected = F.scaled_dot_product_attention(q, k, v)
    assert worst([F.scaled_dot_product_attention(q, *doubled)], [expected]) > CONTROL


def test_scale_reaches_every_rank() -> None:
    outs, expected = attention_of_ranks(Mesh(ring=3), [4, 2, 5], 2, Context(3), scale=0.7)
    assert worst(outs, expected) <= EXACT_FLOAT64


def test_canvases_of_a_guidance_axis_stay_apart() -> None:
    mesh, tokens = Mesh(guidance=2, ring=2), [3, 5]
    whole = qkv(2, 8)
    own = runs(tokens, 0, "front")

    def rank(comm: Comm) -> Tensor:
        factor = 1.0 + comm.rank // 2
        scaled = [x * factor for x in whole]
        return on_rank(comm, mesh, scaled, own, tokens=tokens)

    outs = run_threads(rank, 4)
    for guidance in (0, 1):
        expected = F.scaled_dot_product_attention(*(x * (1.0 + guidance) for x in whole))
        halves = torch.cat(outs[2 * guidance : 2 * guidance + 2], dim=2)
        assert worst([halves], [expected]) <= EXACT_FLOAT64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["front", "rear"])
def test_text_rows_are_the_same_bits_on_every_rank(side: str, dtype: torch.dtype) -> None:
    context = Context(3, side)
    outs, _ = attention_of_ranks(Mesh(ring=2, ulysses=2), [4, 2, 7, 1], 3, context, dtype)
    first, *others = (context.split(out)[0] for out in outs)
    assert first.dtype == dtype
    assert all(torch.equal(first, other) for other in others)


def test_bfloat16_merges_do_not_drift_with_the_number_of_ranks() -> None:
    def error(num_ranks: int) -> float:
        tokens = [48 // num_ranks] * num_ranks
        outs, expected = attention_of_ranks(Mesh(ring=num_ranks), tokens, 2, None, torch.bfloat16)
        difference = torch.cat(outs, 2).double() - torch.cat(expected, 2)
        return float(difference.norm() / torch.cat(expected, 2).norm())

    assert error(12) <= 1.5 * error(1)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ulysses_and_ring_send_the_bytes_of_their_formulas(num_ranks: int) -> None:
    """With A the bytes of one activation: 4 A (N-1)/N^2 by Ulysses, 2 A (N-1)/N by ring."""
    num_heads, tokens = 4, [6] * num_ranks
    whole = qkv(num_heads, sum(tokens))
    own = runs(tokens, 0, "front")

    def sent(comm: Comm, mesh: Mesh) -> int:
        on_rank(comm, mesh, whole, own, tokens=tokens)
        return comm.num_bytes_sent

    activation, n = whole[0].numel() * whole[0].element_size(), num_ranks
    by_ulysses = run_threads(sent, n, Mesh(ulysses=n))
    by_ring = run_threads(sent, n, Mesh(ring=n))
    assert by_ulysses == [4 * activation * (n - 1) // n**2] * n
    assert by_ring == [2 * activation * (n - 1) // n] * n


def test_only_the_next_block_travels_while_the_present_one_is_computed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    blocks: list[weakref.ref[Tensor]] = []  # own first, then what arrived and is sent on
    on_rank_0 = threading.local()
    attend = sequence_parallel.attend

    def logged_attend(*args: Any, **options: Any) -> Any:
        if getattr(on_rank_0, "yes", False):
            events.append("attend")
            assert sum(block() is not None for block in blocks) <= 1  # the one computed on
        return attend(*args, **options)

    def rank(comm: Comm) -> None:
        on_rank_0.yes = comm.rank == 0
        if comm.rank == 0:
            monkeypatch.setattr(comm, "ring_pass", logged_pass(comm.ring_pass))
        on_rank(comm, Mesh(ring=3), whole, own, tokens=tokens)

    def logged_pass(ring_pass: Callable[[Tensor, Like], Pending]) -> Any:
        def post(x: Tensor, like: Like) -> Pending:
            events.append("post")
            blocks.append(weakref.ref(x))
            pending = ring_pass(x, like)
            return Pending(lambda: (events.append("wait"), pending.wait())[1])

        return post

    monkeypatch.setattr(sequence_parallel, "attend", logged_attend)
    whole, tokens = qkv(2, 9), [3, 3, 3]
    own = runs(tokens, 0, "front")
    run_threads(rank, 3)
    assert events == ["post", "attend", "wait", "post", "attend", "wait", "attend"]


def test_tokens_that_do_not_add_up_are_named() -> None:
    q, k, v = qkv(2, 8)

    def rank(comm: Comm) -> Tensor:
        comms = axis_comms(comm, Mesh(ring=2))
        return canvas_attention(q, k, v, comms=comms, tokens=[8, 7], context=Context(2))

    with pytest.raises(ValueError, match=r"6 image and 2 text tokens .* \[8, 7\]"):
        run_threads(rank, 2)


def test_a_mesh_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has 4 ranks, but there are 2"):
        run_threads(lambda comm: axis_comms(comm, Mesh(ring=2, ulysses=2)), 2)
