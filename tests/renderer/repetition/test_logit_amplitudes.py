"""Amplitudes of the mean logit: those of its own curve, and planted frequencies are found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from frieze.renderer.models.positions import RotaryAxis, frequencies
from frieze.renderer.repetition.logit_amplitudes import (
    AmplitudeProbe,
    Amplitudes,
    amplitudes,
    corrected,
    report,
)

HEADS = 3
FLUX = RotaryAxis("row", 56, 10000.0, trained=128, length=225)
QWEN = RotaryAxis("row", 56, 10000.0, trained=83, length=256)


def small(axis: RotaryAxis, columns: int = 3) -> tuple[RotaryAxis, RotaryAxis]:
    """The axis at its trained length, and columns beside it."""
    at_home = RotaryAxis(axis.name, axis.dim, axis.theta, axis.trained, axis.trained)
    return at_home, RotaryAxis("column", 8, 10000.0, columns, columns)


def rotated(
    axes: Sequence[RotaryAxis], planted: Sequence[int], start: int = 0, strength: float = 4.0
) -> tuple[Tensor, Tensor]:
    """Queries and keys [1, H, S, D] of noise, that agree along the first axis' planted frequencies.

    Turned by the axes' own rotary tables, rows counted from `start`.
    """
    generator = torch.Generator().manual_seed(5)
    row, column = axes
    shape = (1, HEADS, row.length, column.length, (row.dim + column.dim) // 2)
    drawn = [torch.randn((*shape, 2), generator=generator, dtype=torch.float64) for _ in range(2)]
    q, k = (torch.view_as_complex(x) for x in drawn)
    for j in planted:
        q[..., j] += strength
        k[..., j] += strength
    angle = [
        torch.arange(a.length, dtype=torch.float64)[:, None] * frequencies(a, torch.zeros(1))
        for a in axes
    ]
    angle[0] = angle[0] + start * frequencies(row, torch.zeros(1))
    rows, columns = (torch.polar(torch.ones_like(a), a) for a in angle)
    turn = torch.cat(
        [rows[:, None].expand(-1, column.length, -1), columns.expand(row.length, -1, -1)], -1
    )
    q, k = (torch.view_as_real(x * turn).flatten(-2).flatten(2, 3) for x in (q, k))
    return q, k


def heard(axis: RotaryAxis, planted: Sequence[int], start: int = 0) -> tuple[Amplitudes, ...]:
    axes = small(axis)
    ear = AmplitudeProbe(axes)
    for _ in range(2):
        ear.add(*rotated(axes, planted, start))
    return amplitudes(ear.shares(), [axis])


@pytest.mark.parametrize(
    ("axis", "planted"),
    [
        (FLUX, (9,)),
        (QWEN, (8, 9)),
        (QWEN, (9,)),
        (RotaryAxis("row", 32, 10000.0, 16, 32), (2,)),
        (RotaryAxis("row", 32, 10000.0, 16, 64), (2, 3)),
        (RotaryAxis("row", 42, 10000.0, 30, 90), (5,)),
    ],
)
def test_planted_frequencies_are_found_and_nothing_where_none_is_planted(
    axis: RotaryAxis, planted: tuple[int, ...]
) -> None:
    assert corrected(heard(axis, planted)) == planted
    assert corrected(heard(axis, ())) == ()


def test_it_does_not_matter_where_positions_are_counted_from() -> None:
    (first,), (centred,) = heard(FLUX, (9,)), heard(FLUX, (9,), start=-64)
    assert first.shares == pytest.approx(centred.shares, abs=1e-5)


def test_what_cannot_repeat_is_not_chosen_however_strong() -> None:
    """A higher frequency than the dominant one, and one whose period is longer than the canvas."""
    assert corrected(heard(FLUX, (3,))) == ()
    assert corrected(heard(FLUX, (20,))) == ()
    at_home = RotaryAxis("row", 56, 10000.0, 128, 128)
    assert heard(at_home, (9,)) == ()


def test_amplitudes_are_those_of_the_mean_logit_by_distance() -> None:
    """S(Delta) = sum_j a_j cos(omega_j Delta + b_j), averaged over pairs of one distance."""
    axis = RotaryAxis("row", 8, 100.0, trained=24, length=48)
    axes = small(axis, columns=1)
    q, k = rotated(axes, (0, 1, 2, 3), strength=50.0)
    ear = AmplitudeProbe(axes)
    ear.add(q, k)
    logits = (q @ k.mT)[..., :, :].mean((0, 1)) * q.shape[-1] ** -0.5
    omega_F = frequencies(axis, torch.zeros(1))
    curve = torch.stack([logits.diagonal(-n).mean() for n in range(12)])
    waves = (omega_F * torch.arange(12)[:, None]).double()
    a_F = ear.sums["row"] / HEADS
    fitted = (a_F * torch.polar(torch.ones_like(waves), waves)).real.sum(1)
    # The other axis has one position, so that its part is the constant C.
    constant = (ear.sums["column"] / HEADS).real.sum()
    assert (fitted + constant - curve).abs().max() <= 0.02 * curve.abs().max()
    assert float(curve.max() - curve.min()) > math.sqrt(float(curve.abs().max()))


def test_what_was_heard_is_shown_with_a_plot() -> None:
    found = heard(QWEN, (8,))
    lines = report(found)
    assert lines[1].startswith("  row    may repeat: 8 (87.3 tokens, ")
    assert lines[2].strip()[8:11] == "[█]"
    assert lines[-1] == "correct: 8"
