"""Texts dropped in training: each encoder on its own."""

from __future__ import annotations

import pytest
import torch

from frieze.renderer.training.text_dropout import SD3_PROBABILITY, kept


def test_each_encoder_is_dropped_on_its_own() -> None:
    u_EB = torch.rand(3, 20000, generator=torch.Generator().manual_seed(0))
    parts = kept([torch.ones(20000), torch.ones(20000, 4, 2), torch.ones(20000, 5)], 0.464, u_EB)
    stays_EB = torch.stack([part.reshape(20000, -1).amin(1) for part in parts])
    assert stays_EB.equal(torch.stack([part.reshape(20000, -1).amax(1) for part in parts]))
    assert float(stays_EB.mean()) == pytest.approx(1 - SD3_PROBABILITY, abs=0.01)
    without = float((stays_EB.sum(0) == 0).float().mean())
    assert without == pytest.approx(SD3_PROBABILITY**3, abs=0.01)  # the paper's tenth


def test_the_bounds_keep_and_drop_all() -> None:
    text, u_EB = torch.ones(2, 3), torch.tensor([[0.0, 0.999]])
    assert kept([text], 0, u_EB)[0].equal(text)
    assert not kept([text], 1, u_EB)[0].any()
    with pytest.raises(ValueError, match="0 to 1 works"):
        kept([text], 1.1, u_EB)
