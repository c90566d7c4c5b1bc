"""Masks as shares of prompts, and the texts of several prompts as one.

Shape suffixes: B batch, E features, M masks, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frieze.cluster.layout import Band, Canvas
from frieze.renderer.models.family import BandPlace
from frieze.renderer.models.positions import trained
from frieze.renderer.models.regional_prompts import RegionalPrompts, shares

PLACE = BandPlace(Band(0, 2), Canvas(1, 2, 2), trained)


def text(length: int, value: float) -> dict[str, Tensor]:
    return {"embeds": torch.full((1, length, 3), value), "pooled": torch.full((1, 4), value)}


def test_shares_add_up_to_one_and_overlaps_share() -> None:
    mask_MHW = torch.tensor([[[0.0, 1.0], [0.25, 1.0]], [[0.0, 0.0], [0.25, 1.0]]])
    share_PHW = shares(mask_MHW)
    assert share_PHW.sum(0).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert share_PHW.flatten(1).T.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0.5, 0.25, 0.25],
        [0, 0.5, 0.5],
    ]


def test_what_rounding_leaves_is_no_share() -> None:
    thirds_MHW = torch.full((3, 1, 1), 1 / 3) * (1 - 1e-7)
    assert shares(thirds_MHW)[0].tolist() == [[0.0]]


def test_prompts_without_a_share_are_not_asked() -> None:
    black, white = torch.zeros(2, 2), torch.ones(2, 2)
    plain = RegionalPrompts.of(("a", "b"), black[None])
    edited = RegionalPrompts.of(("a", "b", "c"), torch.stack([white, black]))
    assert (plain.prompts, edited.prompts) == (("a",), ("b",))
    for prompts in (plain, edited):
        only = text(5, 1.0)
        assert prompts.joined([only]) is only
        assert prompts.place(PLACE, [only]) is PLACE
    assert RegionalPrompts.of(("a",), None).prompts == ("a",)


def test_texts_are_joined_and_what_stands_for_them_is_the_mean_by_area() -> None:
    mask_MHW = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    prompts = RegionalPrompts.of(("a", "b"), mask_MHW)
    texts = [text(5, 1.0), text(3, 5.0)]
    joined = prompts.joined(texts)
    assert joined["embeds"][0, :, 0].tolist() == [1.0] * 5 + [5.0] * 3
    assert joined["pooled"].tolist() == [[2.0] * 4]
    assert prompts.place(PLACE, texts).texts == (5, 3)


def test_margins_are_as_the_edges() -> None:
    prompts = RegionalPrompts.of(("a", "b"), torch.tensor([[[1.0, 0.0], [0.5, 0.25]]]))
    regions = prompts.place(PLACE, [text(5, 1.0), text(3, 5.0)], margin=1).regions
    assert regions is not None
    assert regions.share_PRC[1].tolist() == [
        [1.0, 1.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0],
        [0.5, 0.5, 0.25, 0.25],
        [0.5, 0.5, 0.25, 0.25],
    ]
