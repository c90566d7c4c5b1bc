"""Formulas that stretch rotary frequencies beyond the trained length, and policies made of them.

An axis of d channels has F = d / 2 frequencies omega_j = theta^(-2j/d), j from 0, and periods
T_j = 2 pi / omega_j in tokens; T_0 is 2 pi always. Where a formula has d / (d - 2), F / (F - 1)
stands here.
Shape suffixes: S tokens, F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING

from ..models.positions import PositionPolicy, frequencies, trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..models.positions import RotaryAxis

PICTURE = ("row", "column")
# Turns over the trained length between which vision-YaRN fades from one band to the next.
LOW_TURNS = (1.25, 0.75)
HIGH_TURNS = (16.0, 2.0)

# (axis, trained omega_F, sigma) -> omega_F; asked for lengths beyond the trained one only.
Rule = Callable[["RotaryAxis", "Tensor", float], "Tensor"]


def stretch(axis: RotaryAxis) -> float:
    """How many times longer than trained the axis is; never less than 1."""
    return max(1.0, axis.length / axis.trained)


def policy(
    rule: Rule, names: Container[str] | None = None, *, steady: bool = False
) -> PositionPolicy:
    """Angles by the rule's frequencies on the axes named (None: all) that are longer than trained.

    Every other axis keeps the trained angles, bit by bit. A `steady` rule says the same at every
    sigma, and is asked once for an axis.
    """

    asked = _Once(rule) if steady else rule

    def positions(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        if axis.length <= axis.trained or (names is not None and axis.name not in names):
            return trained(axis, position_S, sigma)
        omega_F = asked(axis, known_frequencies(axis, position_S), sigma).to(position_S.device)
        return position_S.double()[:, None] * omega_F[None, :]

    return positions


def by_length(
    factors: Mapping[tuple[str, int], float], beyond: Mapping[str, float]
) -> PositionPolicy:
    """Bases multiplied by the factor of an axis' name and length, whatever length is known.

    Where none is stated it is that of `beyond`, by name, on axes that are longer than trained.
    """

    def positions(axis: RotaryAxis, position_S: Tensor, sigma: float) -> Tensor:
        longer = beyond.get(axis.name, 1.0) if axis.length > axis.trained else 1.0
        factor = factors.get((axis.name, axis.length), longer)
        if factor == 1:
            return trained(axis, position_S, sigma)
        return position_S.double()[:, None] * ntk(frequencies(axis, position_S), factor)[None, :]

    return positions


def known_frequencies(axis: RotaryAxis, position_S: Tensor) -> Tensor:
    """The trained frequencies for rules to look at: of positions on the meta device on the CPU.

    Memory is counted there, and no value is held.
    """
    like = position_S.new_empty(0, device="cpu") if position_S.is_meta else position_S
    return frequencies(axis, like)


class _Once:
    """A rule whose answers are kept, by axis and device; they do not travel with it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._found: dict[tuple[RotaryAxis, torch.device], Tensor] = {}

    def __call__(self, axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        key = (axis, omega_F.device)
        if key not in self._found:
            self._found[key] = self.rule(axis, omega_F, sigma)
        return self._found[key]

    def __reduce__(self) -> tuple[type[_Once], tuple[Rule]]:
        return (_Once, (self.rule,))


def periods(omega_F: Tensor) -> Tensor:
    """T_j = 2 pi / omega_j, tokens."""
    return 2 * math.pi / omega_F


def dominant(omega_F: Tensor, length: float) -> int:
    """Index of the frequency whose period is nearest to `length` (UltraImage, arXiv 2512.04504)."""
    return int((periods(omega_F) - length).abs().argmin())


def ntk(omega_F: Tensor, factor: float) -> Tensor:
    """Frequencies of the base theta * factor: omega_j * factor^(-j / F)."""
    import torch

    j_F = torch.arange(len(omega_F), dtype=torch.float64, device=omega_F.device)
    return omega_F * factor ** (-j_F / len(omega_F))


def aware_factor(num_frequencies: int, scale: float) -> float:
    """scale^(d / (d - 2)): omega_0 stays and the lowest frequency is divided by scale exactly."""
    return float(scale ** (num_frequencies / max(1, num_frequencies - 1)))


def vision_yarn(
    omega_F: Tensor, theta: float, length: int, scale: float, fade: float = 1.0
) -> Tensor:
    """Three bands: low frequencies divided by scale, middle ones NTK-aware, high ones kept.

    `length` is the trained one. The bands' limits are in turns over it, times `fade` (DyPE, arXiv
    2510.20766, its released code); at 0 every frequency is kept.
    """
    aware_F = ntk(omega_F, aware_factor(len(omega_F), scale))
    middle_F = _share_above(omega_F, theta, length, LOW_TURNS, fade)
    kept_F = _share_above(omega_F, theta, length, HIGH_TURNS, fade)
    stretched_F = (1 - middle_F) * omega_F / scale + middle_F * aware_F
    return (1 - kept_F) * stretched_F + kept_F * omega_F


def _share_above(
    omega_F: Tensor, theta: float, length: int, turns: tuple[float, float], fade: float
) -> Tensor:
    """1 for frequencies with more turns over `length` than the first, 0 below the second."""
    import torch

    first, last = (_index_of(len(omega_F), theta, length, turn * fade) for turn in turns)
    if last < 0:
        return torch.zeros_like(omega_F)
    # With both limits beyond the last frequency a ramp between them would run backwards.
    limits = (math.floor(first), math.ceil(last))
    low, high = (min(max(limit, 0), len(omega_F)) for limit in limits)
    width = high - low or 1e-3
    share_F = [1 - min(max((j - low) / width, 0.0), 1.0) for j in range(len(omega_F))]
    return torch.tensor(share_F, dtype=torch.float64, device=omega_F.device)


def _index_of(num_frequencies: int, theta: float, length: int, turns: float) -> float:
    """The j, between whole ones, whose frequency makes so many turns over `length`."""
    if turns < 1e-300:
        return 1e9
    return num_frequencies * math.log(length / (2 * math.pi * turns)) / math.log(theta)


def temperature(axis: RotaryAxis) -> float:
    """tau = 1 + 0.1 ln s, on cos and sin of rows and columns (YaRN, arXiv 2309.00071, eq. 22).

    It is in queries and in keys, so that logits get tau squared.
    """
    return 1.0 + 0.1 * math.log(stretch(axis)) if axis.name in PICTURE else 1.0


def kappa(sigma: float, most: float, power: float) -> float:
    """kappa = most * sigma^power, what scales an edit at a noise level (DyPE, arXiv 2510.20766)."""
    return float(most * max(0.0, sigma) ** power)


def faded(rule: Rule, power: float) -> Rule:
    """The rule in full at pure noise and not at all at none: omega * (rule / omega)^(sigma^power).

    Layout is settled early, so the edit may leave the late steps alone, as DyPE's do.
    """

    def fading(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        share = min(1.0, kappa(sigma, 1.0, power))
        return omega_F * (rule(axis, omega_F, sigma) / omega_F) ** share

    return fading
