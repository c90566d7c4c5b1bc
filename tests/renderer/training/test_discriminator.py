"""A discriminator's losses where the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frieze.renderer.training.discriminator import (
    KNOWN,
    PatchDiscriminator,
    discriminator_loss,
    known,
    slope_penalty,
)
from tolerances import CONTROL, EXACT_FLOAT64


def test_the_loss_is_a_hinge() -> None:
    real = torch.tensor([2.0, 1.0, 0.5, -1.0])
    drawn = torch.tensor([-2.0, -1.0, -0.5, 1.0])
    assert float(discriminator_loss(real, drawn)) == pytest.approx(2 * (0 + 0 + 0.5 + 2) / 4)
    assert float(discriminator_loss(torch.zeros(4), torch.zeros(4))) == 2  # nothing is told apart
    assert float(discriminator_loss(real + 9, drawn - 9)) == 0


class Squares(nn.Module):
    """Judges a pixel by half its square, times a weight: its slope is the picture's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, residual_B3hw: Tensor, known_BKhw: Tensor) -> Tensor:
        return self.weight / 2 * residual_B3hw.square().sum(dim=1, keepdim=True)


@torch.enable_grad()
def test_the_penalty_of_a_square_is_its_formula() -> None:
    judge, x = Squares(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    penalty = slope_penalty(judge, x, x)
    expected = float(9 * x.square().sum() / (2 * 8 * 8))
    assert float(penalty.detach()) == pytest.approx(expected)
    penalty.backward()
    assert judge.weight.grad is not None
    assert float(judge.weight.grad) == pytest.approx(2 * expected / 3)  # it teaches


@torch.enable_grad()
def test_the_penalty_is_of_the_slope_by_differences() -> None:
    judge = PatchDiscriminator(4).double()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    beside = torch.randn(1, KNOWN, 8, 8, dtype=torch.float64)
    penalty = float(slope_penalty(judge, x, beside).detach())

    def by_differences(step: float) -> float:
        nudges = step * torch.eye(x.numel(), dtype=torch.float64).view(-1, 3, 8, 8)
        many = beside.expand(len(nudges), -1, -1, -1)
        with torch.no_grad():
            sums = [judge(x + sign * nudges, many).sum(dim=(1, 2, 3)) for sign in (1, -1)]
        return (
            float(((sums[0] - sums[1]) / (2 * step)).square().sum()) / 8
        )  # of 2 x 2 judgements of each size

    assert penalty == pytest.approx(by_differences(1e-6), rel=1e-6)
    assert abs(penalty - 4 * by_differences(1e-6)) > EXACT_FLOAT64  # the control: another count


def test_it_judges_beside_what_is_known() -> None:
    judge, residual = PatchDiscriminator(4), torch.randn(1, 3, 72, 72)
    low = torch.randn(1, 3, 72, 72) / 3
    beside = known(low)
    assert beside.shape == (1, KNOWN, 72, 72)
    first = judge(residual, beside)
    assert first.shape == (1, 1, 18, 36)
    assert float((first - judge(residual, known(-low))).abs().max()) > CONTROL
    moved = residual.clone()
    moved[..., :24, :] += 1
    again = judge(moved, beside)
    # Of 26 pixels around every four, and 54 around every eight: those far below see none of it.
    for part, sees in ((slice(18), 8), (slice(18, None), 11)):
        assert torch.equal(again[..., sees + 1 :, part], first[..., sees + 1 :, part])
        assert not torch.equal(again[..., sees, part], first[..., sees, part])
    far = 100 * residual.sign()  # a star's; the control: smaller ones differ
    assert torch.equal(judge(far, beside), judge(2 * far, beside))
    assert not torch.equal(judge(far / 100, beside), judge(far / 50, beside))
