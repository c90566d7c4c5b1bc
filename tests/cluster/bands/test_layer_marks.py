"""Marked layers attend to the whole canvas, and not one of them escapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.attention import Context
from frieze.cluster.bands import BandError, BandMode, mark
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, cut
from support.banded import (
    BANDS,
    WIDTH,
    Attention,
    Model,
    canvas,
    error,
    marked,
    on_bands,
    refused,
    rows_of,
)
from tolerances import CONTROL, EXACT_FLOAT64


@pytest.mark.parametrize("way", ["once", "grouped"])
def test_marked_attention_matches_the_whole_canvas(way: str) -> None:
    model, marks = marked(Attention(way), Attention(way))
    assert marks[0].names == ("blocks.0", "blocks.1")
    assert error(model, canvas(1, 4), marks=marks) <= EXACT_FLOAT64


def test_unmarked_attention_would_be_wrong() -> None:
    """The control: what the mode refuses below is in fact wrong."""
    model, x = Model(Attention()), canvas(1, 4)
    parts = [model(rows_of(x, band)) for band in BANDS]
    assert (torch.cat(parts, -2) - model(x)).abs().max() > CONTROL


def test_unmarked_self_attention_raises() -> None:
    refused(Model(Attention()), canvas(1, 4), "layer that is not marked")


def test_queries_from_elsewhere_that_pool_the_canvas_raise() -> None:
    def pool(x: Tensor) -> Tensor:
        keys = F.group_norm(x, 2).flatten(2).mT[:, None]
        return F.scaled_dot_product_attention(keys[:, :, :2].clone(), keys, keys)

    refused(pool, canvas(1, 4), "2 queries ask")


def test_attention_to_text_needs_no_mark() -> None:
    text = torch.randn(1, 1, 7, 4, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(x.flatten(2).mT[:, None], text, text)
        return out[:, 0].mT.unflatten(2, x.shape[2:])

    assert error(function, canvas(1, 4)) <= EXACT_FLOAT64


class _Joined(Attention):
    """Self-attention of x [B, S, D] joined to as much text as is in `text` [B, heads, L, D]."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.text = text

    def forward(self, x: Tensor) -> Tensor:
        q = torch.cat([x.unflatten(-1, (2, -1)).transpose(1, 2), self.text], dim=2)
        out = F.scaled_dot_product_attention(q, q, q)[:, :, : x.shape[1]]
        return out.transpose(1, 2).flatten(2)


def test_text_joins_tokens_that_look_like_a_map() -> None:
    """Ten tokens a row of 100 features a head: so is a map ten times as tall and as wide."""
    text = torch.randn(1, 2, 7, WIDTH**2, dtype=torch.float64)
    model, marks = marked(_Joined(text), context=Context(7, "rear"))
    x = canvas(1, 2 * WIDTH**2)
    assert error(model, x, marks=marks) <= EXACT_FLOAT64
    refused(Model(_Joined(text)), x, "^cat on ")


@pytest.mark.parametrize("way", ["once", "by hand", "twice"])
def test_local_layers_are_left_alone(way: str) -> None:
    model = Model(Attention(way))
    marks = (mark(model, lambda name, layer: name == "blocks.0", local=True),)
    x = canvas(1, 4)
    for part, band in zip(on_bands(model, x, marks=marks), BANDS, strict=True):
        assert torch.equal(part, model(rows_of(x, band)))


@pytest.mark.parametrize("way", ["by hand", "twice"])
def test_the_guard_names_the_layer_whose_attention_escaped(way: str) -> None:
    model, marks = marked(Attention(), Attention(way))
    refused(model, canvas(1, 4), r"'blocks\.1' made 2|softmax|matmul", marks=marks)
    model, marks = marked(Attention(way))
    number = {"by hand": 0, "twice": 2}[way]
    refused(model, canvas(1, 4), rf"'blocks\.0' made {number} attentions", marks=marks)


def test_the_guard_sees_a_diffusers_processor_that_computes_by_hand() -> None:
    from diffusers.models.attention_processor import AttnProcessor

    from support.cases import CASES

    case = CASES["unet"]
    model = case.model(torch.float64)
    model.set_attn_processor(AttnProcessor())
    marks = mark(model, lambda name, _: case.match(name))

    def rank(comm: Comm) -> Tensor:
        bands = cut(case.height, comm.size, case.align)
        band = bands[comm.rank]
        with BandMode(comm, bands, marks=[marks]):
            return case.draw(model, rows_of(case.canvas(torch.float64), band), band)

    with pytest.raises(BandError, match=r"softmax|made 0 attentions"):
        run_threads(rank, 2)


def test_the_guard_names_layers_that_did_not_run() -> None:
    model, marks = marked(Attention(), Attention())
    refused(
        lambda x: model.blocks[0](x.flatten(2).mT),
        canvas(1, 4),
        r"1 of 2 marked layers .*: blocks\.1",
        marks=marks,
    )


def test_marks_that_match_nothing_are_refused() -> None:
    with pytest.raises(BandError, match="no layer of Model matches"):
        mark(Model(), lambda name, layer: name.endswith("attn"))


def test_marks_come_off() -> None:
    model, (marks,) = marked(Attention())
    marks.remove()
    refused(model, canvas(1, 4), "not marked")


def test_context_may_depend_on_the_call_and_is_asked_for_inside_a_mode_only() -> None:
    seen: list[str] = []

    def context(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(type(layer).__name__)

    model = Model(Attention())
    marks = (mark(model, lambda name, _: name == "blocks.0", context),)
    assert error(model, canvas(1, 4), marks=marks) <= EXACT_FLOAT64
    assert seen == ["Attention"] * 3


@pytest.mark.parametrize("bands", [BANDS, (Band(0, 12), Band(12, 24))])
def test_a_context_that_does_not_fit_is_refused(bands: tuple[Band, ...]) -> None:
    model, marks = marked(Attention(), context=Context(24))
    refused(model, canvas(1, 4), "tokens less 24 of text", marks=marks, bands=bands)


OPEN_MASKS = [torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, 1).double()]


@pytest.mark.parametrize("mask", OPEN_MASKS, ids=["bool", "float"])
def test_masks_without_gaps_are_no_masks(mask: Tensor) -> None:
    model, marks = marked(Attention(attn_mask=mask))
    assert error(model, canvas(1, 4), marks=marks) <= EXACT_FLOAT64


@pytest.mark.parametrize(
    "options",
    [
        {"attn_mask": torch.zeros(1, 1, 1, 1, dtype=torch.bool)},
        {"attn_mask": torch.ones(1, 1, 1, 1).double()},
        {"is_causal": True},
        {"dropout_p": 0.5},
    ],
    ids=str,
)
def test_masks_causality_and_dropout_are_refused(options: dict[str, Any]) -> None:
    model, marks = marked(Attention(**options))
    refused(model, canvas(1, 4), r"'blocks\.0': is_causal", marks=marks)


def test_marked_cross_attention_is_refused() -> None:
    model, marks = marked(Attention("keys of another"))
    refused(model, canvas(1, 4), "do not mark cross-attention", marks=marks)
