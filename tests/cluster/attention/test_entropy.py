"""The entropy of attention over a canvas is that of one rank, and of the dense formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.cluster.attention import Context, canvas_attention, canvas_entropy
from frieze.cluster.comm import Comm, axis_comms, phantom, run_threads
from frieze.cluster.layout import Mesh
from frieze.kernels.decay import Decay
from tolerances import CONTROL, ENTROPY_FLOAT32, EXACT_FLOAT64

HEAD_DIM, COLUMNS = 8, 2
DECAY = Decay(window=1, alpha=0.8, beta=0.5, gamma=0.5, periods=(2.0,))


@dataclass(frozen=True)
class Layout:
    """Rows of each rank, frames, text and heads of one attention."""

    mesh: Mesh
    rows: tuple[int, ...]
    num_heads: int = 3
    num_frames: int = 1
    context: Context | None = None

    @property
    def tokens(self) -> list[int]:
        return [self.num_frames * rows * COLUMNS for rows in self.rows]

    @property
    def num_text(self) -> int:
        return self.context.num_tokens if self.context else 0

    @property
    def is_front(self) -> bool:
        return self.context is None or self.context.side == "front"

    def own(self, rank: int) -> Tensor:
        """Places of a rank's joint sequence in the whole one."""
        first = self.num_text if self.is_front else 0
        image = torch.arange(sum(self.tokens)).view(self.num_frames, -1, COLUMNS) + first
        above = sum(self.rows[:rank])
        mine = image[:, above : above + self.rows[rank]].flatten()
        text = torch.arange(self.num_text) + (0 if self.is_front else sum(self.tokens))
        return torch.cat((text, mine) if self.is_front else (mine, text))

    def frames(self) -> Tensor:
        """The frame of every token of the whole sequence, -1 for text."""
        per_frame = sum(self.tokens) // self.num_frames
        image = torch.arange(self.num_frames).repeat_interleave(per_frame)
        text = torch.full((self.num_text,), -1)
        return torch.cat((text, image) if self.is_front else (image, text))


def qk(layout: Layout, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (2, 2, layout.num_heads, sum(layout.tokens) + layout.num_text, HEAD_DIM)
    q, k = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return q.to(dtype), k.to(dtype)


def entropies(layout: Layout, qk: Sequence[Tensor], **options: Any) -> list[Tensor]:
    """What every rank gets."""

    def rank(comm: Comm) -> Tensor:
        q, k = (x[:, :, layout.own(comm.rank)] for x in qk)
        comms, frames = axis_comms(comm, layout.mesh), {"num_frames": layout.num_frames}
        where = {"tokens": layout.tokens, "context": layout.context}
        return canvas_entropy(q, k, comms=comms, **where, **frames, **options)

    return run_threads(rank, layout.mesh.world_size)


def weights(layout: Layout, q: Tensor, k: Tensor, decay: Decay | None = None) -> Tensor:
    logits = q.double() @ k.double().mT * HEAD_DIM**-0.5
    if decay is not None:
        frame = layout.frames()
        place = frame.clamp(min=0)
        factors = decay.factors(layout.num_frames)[(place[:, None] - place[None]).abs()]
        exempt = (frame < 0)[:, None] | (frame < 0)[None]
        logits = torch.where((logits > 0) & ~exempt, logits * factors, logits)
    return logits.softmax(-1)


def dense(layout: Layout, q: Tensor, k: Tensor, decay: Decay | None = None) -> Tensor:
    weight = weights(layout, q, k, decay)
    return -torch.xlogy(weight, weight).sum(-1).mean(-1)


def dense_pooled(weight_BHSK: Tensor, side: int) -> Tensor:
    """Entropy of blocks: rows averaged by block, keys summed by block."""
    rows = torch.stack([part.mean(2) for part in weight_BHSK.split(side, 2)], 2)
    share = torch.stack([part.sum(3) for part in rows.split(side, 3)], 3)
    return -torch.xlogy(share, share).sum(-1).mean(-1)


def worst(found: list[Tensor], expected: Tensor) -> float:
    return max(float((x - expected).abs().max()) for x in found)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    mesh = Mesh(ring=draw(st.integers(1, 3)), ulysses=draw(st.integers(1, 3)))
    rows = tuple(draw(st.integers(1, 4)) for _ in range(mesh.world_size))
    side = draw(st.sampled_from(["front", "rear", None]))
    context = Context(draw(st.integers(1, 5)), side) if side else None
    return Layout(mesh, rows, draw(st.integers(1, 4)), draw(st.integers(1, 3)), context)


THREE = Layout(Mesh(ring=3), (2, 5, 3), context=Context(3))
SQUARE = Layout(Mesh(ring=2, ulysses=2), (2, 5, 3, 1), context=Context(3, "rear"))
CLIP = Layout(Mesh(ring=2, ulysses=2), (1, 3, 2, 1), num_frames=4, context=Context(5))


@settings(max_examples=30, deadline=None)
@given(layout=layouts(), decays=st.booleans())
def test_any_mesh_any_text_any_frames_match_the_dense_formula(layout: Layout, decays: bool) -> None:
    q, k = qk(layout)
    decay = DECAY if decays else None
    found = entropies(layout, (q, k), decay=decay)
    assert found[0].dtype == torch.float64
    assert worst(found, dense(layout, q, k, decay)) <= EXACT_FLOAT64
    assert all(torch.equal(found[0], other) for other in found)


@settings(max_examples=30, deadline=None)
@given(layout=layouts(), decays=st.booleans(), side=st.integers(1, 12))
def test_blocks_match_the_dense_formula_wherever_bands_cut_them(
    layout: Layout, decays: bool, side: int
) -> None:
    q, k = qk(layout)
    decay = DECAY if decays else None
    found = entropies(layout, (q, k), decay=decay, pooled=side)
    expected = dense_pooled(weights(layout, q, k, decay), side)
    assert worst(found, expected) <= EXACT_FLOAT64
    assert all(torch.equal(found[0], other) for other in found)


def test_controls_a_rank_alone_text_twice_and_no_decay_are_others() -> None:
    q, k = qk(CLIP)
    truth = dense(CLIP, q, k)
    alone = CLIP.own(1)
    assert worst([dense(CLIP, q[:, :, alone], k[:, :, alone])], truth) > CONTROL
    twice = torch.cat((q, q[:, :, :5]), dim=2)
    assert worst([dense(CLIP, twice, k)], truth) > CONTROL
    assert worst([dense(CLIP, q, k, DECAY)], truth) > CONTROL


@pytest.mark.parametrize("pooled", [None, 4])
@pytest.mark.parametrize("side", ["front", "rear"])
def test_float32_agrees_between_numbers_of_ranks(side: str, pooled: int | None) -> None:
    context = Context(3, side)
    one, *others = (
        Layout(Mesh(ring=ring, ulysses=ulysses), rows, context=context)
        for ring, ulysses, rows in [
            (1, 1, (60,)),
            (2, 1, (22, 38)),
            (3, 1, (9, 37, 14)),
            (2, 2, (18, 7, 23, 12)),
        ]
    )
    whole = qk(one, torch.float32)
    expected = entropies(one, whole, pooled=pooled)[0]
    for layout in others:
        found = entropies(layout, whole, pooled=pooled)
        assert worst([x / expected for x in found], torch.ones(())) <= ENTROPY_FLOAT32
        assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("layout", [THREE, SQUARE, CLIP], ids=["ring", "square", "clip"])
def test_uniform_attention_has_the_logarithm_of_the_number_of_keys(layout: Layout) -> None:
    q, k = qk(layout)
    num_tokens = q.shape[2]
    found = entropies(layout, (q, k[:, :, :1].expand_as(k)))
    assert worst(found, torch.tensor(math.log(num_tokens), dtype=torch.float64)) <= EXACT_FLOAT64
    blocks = torch.tensor([min(4, num_tokens - i) for i in range(0, num_tokens, 4)])
    share = blocks.double() / num_tokens
    found = entropies(layout, (q, k[:, :, :1].expand_as(k)), pooled=4)
    assert worst(found, -(share * share.log()).sum()) <= EXACT_FLOAT64


@pytest.mark.parametrize("side", [16, 64])
def test_no_mass_falls_on_padding(side: int) -> None:
    """72 tokens padded with zeros to whole blocks, as a kernel might, are another entropy."""
    layout = Layout(Mesh(ring=2), (20, 14), context=Context(4))
    q, k = qk(layout)
    assert q.shape[2] == 72
    padding = q.new_zeros((*q.shape[:2], -72 % side, HEAD_DIM))
    padded = weights(layout, torch.cat((q, padding), 2), torch.cat((k, padding), 2))
    found = entropies(layout, (q, k), pooled=side)
    assert worst(found, dense_pooled(weights(layout, q, k), side)) <= EXACT_FLOAT64
    assert worst(found, dense_pooled(padded, side)) > CONTROL


def test_blocks_of_one_token_are_tokens() -> None:
    q, k = qk(THREE)
    assert worst(entropies(THREE, (q, k), pooled=1), entropies(THREE, (q, k))[0]) <= EXACT_FLOAT64


def test_scale_reaches_every_rank() -> None:
    q, k = qk(SQUARE)
    for pooled in (None, 4):
        plain = entropies(SQUARE, (2 * q, k), pooled=pooled)
        assert worst(
            entropies(SQUARE, (q, k), pooled=pooled, scale=2 * HEAD_DIM**-0.5), plain[0]
        ) <= (EXACT_FLOAT64)


@pytest.mark.parametrize("layout", [CLIP, THREE], ids=["clip", "one frame"])
def test_decayed_attention_on_ranks_matches_the_dense_formula(layout: Layout) -> None:
    q, k = qk(layout)
    v = q.flip(2)

    def rank(comm: Comm, decay: Decay | None) -> Tensor:
        parts = (x[:, :, layout.own(comm.rank)] for x in (q, k, v))
        where = {"tokens": layout.tokens, "context": layout.context}
        frames = {"decay": decay, "num_frames": layout.num_frames}
        return canvas_attention(*parts, comms=axis_comms(comm, layout.mesh), **where, **frames)

    expected = weights(layout, q, k, DECAY) @ v
    plain = weights(layout, q, k) @ v
    size = layout.mesh.world_size
    decayed, left = (run_threads(rank, size, decay) for decay in (DECAY, None))
    for index in range(size):
        own = layout.own(index)
        assert worst([decayed[index]], expected[:, :, own]) <= EXACT_FLOAT64
        assert worst([left[index]], plain[:, :, own]) <= EXACT_FLOAT64
    if layout.num_frames > 1:
        assert worst([plain], expected) > CONTROL
    first, *others = (layout.context.split(out)[0] for out in decayed)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("pooled", [None, 4])
@pytest.mark.parametrize("decay", [None, DECAY], ids=["plain", "decay"])
def test_a_rank_without_others_has_its_shape(decay: Decay | None, pooled: int | None) -> None:
    q, k = (x[:, :, CLIP.own(1)].to("meta") for x in qk(CLIP))
    comms = axis_comms(phantom(1, 4), CLIP.mesh)
    where = {"tokens": CLIP.tokens, "context": CLIP.context, "num_frames": CLIP.num_frames}
    found = canvas_entropy(q, k, comms=comms, decay=decay, pooled=pooled, **where)
    assert (found.shape, found.dtype) == ((2, 3), torch.float64)
    assert found.is_meta


def test_what_does_not_add_up_is_refused() -> None:
    q, k = qk(THREE)
    with pytest.raises(ValueError, match=r"ranks of \[4, 10, 6\] .* do not hold 5 frames"):
        run_threads(
            lambda comm: canvas_entropy(
                *(x[:, :, THREE.own(comm.rank)] for x in (q, k)),
                comms=axis_comms(comm, THREE.mesh),
                tokens=THREE.tokens,
                context=THREE.context,
                num_frames=5,
            ),
            3,
        )
    with pytest.raises(ValueError, match="blocks of 0 tokens"):
        entropies(THREE, (q, k), pooled=0)
