"""Attention by regions is the blend of what every prompt alone would answer, on any mesh.

Shape suffixes: B batch, H heads, S tokens, D head dim; of shares P prompts, R rows, C columns.
"""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.cluster.attention import (
    Context,
    Regions,
    canvas_attention,
    prompt_by_prompt,
    regional_attention,
    regional_cross_attention,
    regional_text_attention,
)
from frieze.cluster.comm import Comm, axis_comms, run_threads, solo
from frieze.cluster.layout import Band, Mesh, TokenGrid, cut
from tolerances import CONTROL, EXACT_FLOAT64

CELLS = 2  # a side of a token


def noise(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def shares(num_prompts: int, grid: TokenGrid) -> Regions:
    """Random ones, that add up to 1 in every cell."""
    share_PRC = noise(num_prompts, CELLS * grid.rows, CELLS * grid.columns, seed=8).softmax(0)
    return Regions(share_PRC)


def tokens_of(grid: TokenGrid, band: Band) -> list[int]:
    """Places of a band's tokens in the canvas' raster, frame by frame."""
    per_frame = grid.rows * grid.columns
    rows = range(band.start * grid.columns, band.stop * grid.columns)
    return [frame * per_frame + place for frame in range(grid.frames) for place in rows]


def blended(
    q: Tensor, k: Tensor, v: Tensor, grid: TokenGrid, context: Context, regions: Regions
) -> tuple[Tensor, Tensor]:
    """(text, image) rows of a whole canvas: softmax with one prompt's text after the other."""
    (q_text, q_image), (k_text, k_image), (v_text, v_image) = (context.split(x) for x in (q, k, v))
    share_PS = regions.of_canvas(grid, q).repeat(1, grid.frames)[..., None]
    shared = context.num_tokens - sum(context.runs)
    edges = [shared + sum(context.runs[:i]) for i in range(len(context.runs) + 1)]
    image, head, texts = torch.zeros(()), torch.zeros(()), []
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        own = [*range(shared), *range(start, stop)]
        keys = [torch.cat((a[:, :, own], b), 2) for a, b in ((k_text, k_image), (v_text, v_image))]
        answer = F.scaled_dot_product_attention(torch.cat((q_text[:, :, own], q_image), 2), *keys)
        head = head + regions.means(q)[index] * answer[:, :, :shared]
        texts.append(answer[:, :, shared : len(own)])
        image = image + share_PS[index] * answer[:, :, len(own) :]
    return torch.cat((head, *texts), 2), image


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Mesh, TokenGrid, Context, int]:
    mesh = Mesh(ring=draw(st.integers(1, 3)), ulysses=draw(st.integers(1, 2)))
    heights = [draw(st.integers(1, 3)) for _ in range(mesh.world_size)]
    edges = [sum(heights[:i]) for i in range(len(heights) + 1)]
    bands = tuple(map(Band, edges, edges[1:]))
    grid = TokenGrid(draw(st.integers(1, 2)), bands, draw(st.integers(1, 3)))
    runs = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    side = draw(st.sampled_from(["front", "rear"]))
    context = Context(draw(st.integers(0, 2)) + sum(runs), side, runs)
    return mesh, grid, context, draw(st.integers(1, 4))


def of_ranks(
    layout: tuple[Mesh, TokenGrid, Context, int], runs: tuple[int, ...] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """(what each rank got, what it should have got), joint rows; `runs` of another context."""
    mesh, grid, context, num_heads = layout
    num_image = grid.frames * grid.rows * grid.columns
    q, k, v = 2 * noise(3, 1, num_heads, num_image + context.num_tokens, 8)
    regions = shares(len(context.runs), grid)
    parts = [context.split(x) for x in (q, k, v)]
    given = replace(context, runs=runs or context.runs, regions=regions)

    def rank(comm: Comm) -> Tensor:
        comms = axis_comms(comm, mesh)
        own = tokens_of(grid, grid.bands[comm.rank])
        joint = [context.join(text, image[:, :, own]) for text, image in parts]
        return regional_attention(*joint, comms=comms, grid=grid, context=given)

    text, image = blended(q, k, v, grid, context, regions)
    expected = [context.join(text, image[:, :, tokens_of(grid, band)]) for band in grid.bands]
    return run_threads(rank, mesh.world_size), expected


def worst(outs: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(outs, expected, strict=True))


@settings(max_examples=25, deadline=None)
@given(layout=layouts())
def test_any_mesh_any_runs_any_frames_blend_what_each_prompt_answers(
    layout: tuple[Mesh, TokenGrid, Context, int],
) -> None:
    assert worst(*of_ranks(layout)) <= EXACT_FLOAT64


def test_any_attention_asked_prompt_by_prompt_blends_alike() -> None:
    """What windows are answered with text beside them, here of the whole canvas."""
    grid, context = TokenGrid(2, (Band(0, 4),), 3), Context(7, "rear", (2, 3))
    q, k, v = 2 * noise(3, 1, 2, 7 + 24, 8)
    regions = shares(2, grid)
    comms = axis_comms(solo())
    attention = partial(canvas_attention, comms=comms, tokens=[24])
    made = prompt_by_prompt(
        attention,
        (q, k, v),
        context=context,
        share_PS=regions.of_band(grid, 0, q),
        share_P=regions.means(q),
    )
    expected = context.join(*blended(q, k, v, grid, context, regions))
    assert worst([made], [expected]) <= EXACT_FLOAT64
    assert worst([attention(q, k, v, context=Context(7, "rear"))], [expected]) > CONTROL


def test_control_texts_cut_elsewhere_show() -> None:
    bands = (Band(0, 2), Band(2, 5))
    layout = (Mesh(ring=2), TokenGrid(1, bands, 3), Context(6, "front", (3, 3)), 2)
    assert worst(*of_ranks(layout)) <= EXACT_FLOAT64
    assert worst(*of_ranks(layout, (2, 4))) > CONTROL


def test_ranks_hold_the_same_bits_of_text() -> None:
    bands = (Band(0, 2), Band(2, 5), Band(5, 6))
    layout = (Mesh(ring=3), TokenGrid(1, bands, 3), Context(6, "front", (2, 3)), 2)
    outs, _ = of_ranks(layout)
    assert all(torch.equal(out[:, :, :6], outs[0][:, :, :6]) for out in outs)


@pytest.mark.parametrize("stacked", [False, True], ids=["tokens", "batch"])
def test_cross_attention_blends_layers_on_bands(stacked: bool) -> None:
    runs, bands = (4, 4, 4), (Band(0, 3), Band(3, 4), Band(4, 8))
    grid = TokenGrid(2, bands, 5)
    regions = shares(3, grid)
    q, texts = noise(1, 2, 2 * 8 * 5, 6), [2 * noise(2, 1, 2, 4, 6, seed=n) for n in range(3)]
    k, v = torch.cat(texts, dim=1 if stacked else 3)
    answers = [F.scaled_dot_product_attention(q, *text) for text in texts]
    share_PS = regions.of_canvas(grid, q).repeat(1, 2)[..., None]
    expected = functools.reduce(operator.add, map(operator.mul, share_PS, answers))
    for rank, band in enumerate(bands):
        own = tokens_of(grid, band)
        share = regions.of_band(grid, rank, q)
        made = regional_cross_attention(q[:, :, own], k, v, share_PS=share, runs=runs)
        assert worst([made], [expected[:, :, own]]) <= EXACT_FLOAT64
        assert worst([made], [answers[0][:, :, own]]) > CONTROL


def test_texts_alone_ask_themselves() -> None:
    q, k, v = noise(3, 1, 2, 7, 4)
    made = regional_text_attention(q, k, v, runs=(3, 4))
    for part in (slice(0, 3), slice(3, 7)):
        expected = F.scaled_dot_product_attention(*(x[:, :, part] for x in (q, k, v)))
        assert worst([made[:, :, part]], [expected]) <= EXACT_FLOAT64


def test_shares_of_tokens_are_means_of_cells_and_bands_are_cut_from_them() -> None:
    regions = Regions(torch.arange(48.0).view(1, 8, 6))
    grid = TokenGrid(1, cut(4, 2), 3)
    whole = regions.of_canvas(grid, noise(1))
    assert whole[0, :3].tolist() == [3.5, 5.5, 7.5]
    assert torch.equal(regions.of_band(grid, 1, noise(1)), whole[:, 6:])
    with pytest.raises(ValueError, match="5x3 tokens are no whole cells of 8x6"):
        regions.of_canvas(TokenGrid(1, (Band(0, 5),), 3), noise(1))
