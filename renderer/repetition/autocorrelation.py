"""Does a picture repeat itself, with which period, and which rotary frequencies make it do so?

UltraImage (arXiv 2512.04504, algorithm 1) finds repetition by eye: correct the frequency whose
period is nearest to the one observed, draw again, and stop when nothing repeats. Here drafts are
observed by their correlation with themselves.
Shape suffixes: C channels, T frames, H rows, W columns, L lags in tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..extrapolation.frequencies import PICTURE, periods
from ..extrapolation.frequency_correction import candidates
from ..models.positions import RotaryAxis, frequencies

# A repeating picture is alike to itself again after having been unlike: measured on drafts of the
# demo model, whose plain ones rise by 0.44 and more to 0.26 and more, and mended ones to 0.1.
RISE, LEAST = 0.35, 0.2
# Lags leave at least so many tokens to compare.
OVERLAP = 8
# How far an observed period may lie from that of the frequency behind it, in parts of that.
NEAR = 0.25


@dataclass(frozen=True)
class Observation:
    """What drafts say of one axis: correlation by lag in tokens, and the period if it repeats."""

    axis: str
    profile: tuple[float, ...]
    period: int | None


@dataclass(frozen=True)
class Round:
    """One round of the recursion: what was corrected when it was observed, and what was seen."""

    corrected: tuple[int, ...]
    seen: tuple[Observation, ...]


def lag_profile(x_CTHW: Tensor, name: str, patch: int) -> Tensor:
    """Correlation of latents with themselves, shifted along rows or columns: [L], lag 0 first.

    Of tokens' means. Every line along the axis loses its mean over the part that is compared: what
    is the same all along a line, as a sky along its rows, is no repetition.
    """
    x = F.avg_pool2d(x_CTHW.double().flatten(0, 1)[None], patch)[0]
    x = x.movedim(1 if name == "row" else 2, 0)
    lags = range(1, len(x) - OVERLAP + 1)
    return torch.stack([torch.ones((), dtype=x.dtype), *(_alike(x[:-n], x[n:]) for n in lags)])


def _alike(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-12)


def period(profile_L: Tensor, axis: RotaryAxis) -> int | None:
    """The lag in tokens at which a picture repeats itself; None where it does not.

    A peak, not at the end, that rises above what lies before it, near the period of a frequency
    that may be behind it: others come of the subject, as mountains beside mountains. Of several
    the first that is nearly the highest.
    """
    found, lengths = profile_L.tolist(), may_repeat(axis).values()
    peaks = {
        lag: found[lag]
        for lag in range(2, len(found) - 1)
        if found[lag - 1] < found[lag] >= found[lag + 1]
        and found[lag] >= LEAST
        and found[lag] - min(found[1:lag]) >= RISE
        and any(abs(lag - length) <= NEAR * length for length in lengths)
    }
    return next((lag for lag, value in peaks.items() if value >= 0.8 * max(peaks.values())), None)


def observed(
    drafts: Sequence[Tensor], axes: Sequence[RotaryAxis], patch: int
) -> tuple[Observation, ...]:
    """What drafts [C, T, H, W] say together of the rows and columns longer than trained."""
    seen = []
    for axis in axes:
        if axis.name in PICTURE and axis.length > axis.trained:
            profile_L = torch.stack([lag_profile(x, axis.name, patch) for x in drafts]).mean(0)
            repeats = period(profile_L, axis)
            seen.append(Observation(axis.name, tuple(profile_L.tolist()), repeats))
    return tuple(seen)


def recursion(
    axes: Sequence[RotaryAxis], observe: Callable[[tuple[int, ...]], Sequence[Observation]]
) -> list[Round]:
    """Rounds until nothing repeats, or nothing is left to correct; the last says what was chosen.

    `observe` draws with the frequencies of these indices corrected. Of the dominant frequency and
    lower ones that is chosen whose period is nearest to the observed one.
    """
    named = {axis.name: axis for axis in axes}
    rounds: list[Round] = []
    ks: tuple[int, ...] = ()
    while True:
        seen = tuple(observe(ks))
        rounds.append(Round(ks, seen))
        more = {k for one in seen if (k := _cause(one, named, ks)) is not None}
        if not more:
            return rounds
        ks = tuple(sorted({*ks, *more}))


def _cause(seen: Observation, axes: Mapping[str, RotaryAxis], ks: Sequence[int]) -> int | None:
    """The frequency behind what an axis shows, if it is not corrected yet."""
    if seen.period is None:
        return None
    left = {k: length for k, length in may_repeat(axes[seen.axis]).items() if k not in ks}
    near = {k: abs(length - seen.period) for k, length in left.items()}
    found = min(near, key=near.__getitem__, default=None)
    return found if found is not None and near[found] <= NEAR * left[found] else None


def may_repeat(axis: RotaryAxis) -> dict[int, float]:
    """Periods in tokens of the dominant frequency and of lower ones that fit into the canvas."""
    omega_F = frequencies(axis, torch.zeros(1))
    period_F = periods(omega_F).tolist()
    return {k: period_F[k] for k in candidates(omega_F, axis.trained, axis.length)}
