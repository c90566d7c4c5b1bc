"""What loops of trainings share: rates, averages, states that go on, logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from frieze.renderer.training.loop import (
    TrainingState,
    append_row,
    cosine,
    follow,
    read,
    warmed_up,
)
from support.stripes import same
from tolerances import CONTROL


def state() -> TrainingState:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    ema = torch.nn.Linear(3, 3)
    return TrainingState(model, ema, torch.optim.AdamW(model.parameters(), 0.1))


@torch.enable_grad()
def step(of: TrainingState) -> None:
    of.optimiser.zero_grad()
    of.model(torch.ones(2, 3)).square().mean().backward()
    of.optimiser.step()
    follow(of.ema, of.model, 0.5)


def test_a_state_goes_on_where_it_was_left(tmp_path: Path) -> None:
    whole, path = state(), tmp_path / "a.pt"
    assert whole.restore(path) == (0, 0.0)
    step(whole)
    whole.save(path, 1, 2.5)
    again = state()
    assert again.restore(path) == (1, 2.5)
    for each in (whole, again):
        step(each)
    assert same(again.model, whole.model)
    assert same(again.ema, whole.ema)
    forgetful = state()  # the control: without the optimiser's moments
    forgetful.model.load_state_dict((read(path) or {})["model"])
    step(forgetful)
    assert not same(forgetful.model, whole.model)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_rate_rises_is_held_and_falls() -> None:
    assert [warmed_up(n, 4) for n in (0, 3, 9)] == [0.25, 1, 1]
    assert [cosine(part, held=0.5) for part in (0, 0.5)] == [1, 1]
    assert cosine(0.75, held=0.5) == pytest.approx(0.505)
    assert cosine(0.75) < cosine(0.75, held=0.5) - CONTROL
    assert cosine(2) == pytest.approx(0.01)


def test_a_log_has_its_columns_once(tmp_path: Path) -> None:
    for row in ((1, "a"), (2, "b")):
        append_row(tmp_path / "log.csv", ("step", "told"), row)
    assert (tmp_path / "log.csv").read_text().split() == ["step,told", "1,a", "2,b"]
