"""Which rotary frequencies a model's attention hangs on, from its own queries and keys.

Averaged over all queries and keys that lie Delta tokens apart along an axis, the logit is S(Delta)
= sum_j a_j cos(omega_j Delta + b_j) + C, and content repeats with the period of a frequency whose
amplitude stands out (UltraViCo, arXiv 2511.20123). Logits are sums over the pairs of channels of a
frequency, so a_j is the length of mean(q_j) conj(mean(k_j)) of queries and keys turned back to
position 0, which needs no pair of tokens.
Shape suffixes: B batch, H heads, S image tokens, D head dim, F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from frieze.cluster.attention import AttentionChange
from frieze.cluster.bands import innermost

from ..extrapolation.frequencies import PICTURE
from ..models.positions import RotaryAxis, frequencies
from .autocorrelation import may_repeat

# A frequency dominates with so many times the even share of its axis. Chosen on the demo model, two
# seeds of one prompt: the one that repeats has 3.2 and more, slower ones 1.6 and less.
TIMES = 2.5


@dataclass(frozen=True)
class Amplitudes:
    """Of one axis: every frequency's share of the mean logit's amplitude, and which dominate.

    `periods` are those, in tokens, of the frequencies that may repeat.
    """

    axis: str
    shares: tuple[float, ...]
    periods: Mapping[int, float]

    @property
    def dominant(self) -> tuple[int, ...]:
        """Those that stand out."""
        return tuple(j for j in self.periods if self.shares[j] * len(self.shares) >= TIMES)


def turned_mean(x_BHSD: Tensor, axes: Sequence[RotaryAxis]) -> list[Tensor]:
    """Means over all tokens of the whole canvas, turned back to position 0: of each axis [H, F].

    Tokens come frame by frame, row by row; a frequency has two neighbouring channels. Where
    positions are counted from does not matter to products of such means.
    """
    lengths = [axis.length if axis.name in ("frame", *PICTURE) else 1 for axis in axes]
    turns = x_BHSD.float().unflatten(-1, (-1, 2)).contiguous()
    grid = torch.view_as_complex(turns).mean(0).unflatten(1, lengths)
    found, first = [], 0
    for index, axis in enumerate(axes):
        others = [1 + other for other in range(len(axes)) if other != index]
        own = grid[..., first : first + axis.dim // 2].mean(others)
        position_L = torch.arange(axis.length, dtype=torch.float64, device=own.device)
        angle_LF = position_L[:, None] * frequencies(axis, position_L)
        back_LF = torch.polar(torch.ones_like(angle_LF), -angle_LF)
        found.append((own * back_LF).mean(1))
        first += axis.dim // 2
    return found


@dataclass
class AmplitudeProbe:
    """An attention modifier that changes nothing and adds up amplitudes of all heads.

    `axes` are those of a canvas that one rank holds whole.
    """

    axes: Sequence[RotaryAxis]
    sums: dict[str, Tensor] = field(default_factory=dict)

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """None; of a joint sequence the image tokens are added."""
        call = innermost()
        q, k = q_BHSD, k_BHSD
        if call is not None and call.context is not None:
            (_, q), (_, k) = call.context.split(q), call.context.split(k)
        self.add(q, k)
        return AttentionChange(q_BHSD, k_BHSD)

    def add(self, q_BHSD: Tensor, k_BHSD: Tensor) -> None:
        """Add what the heads of a layer give, of image tokens alone."""
        scale = q_BHSD.shape[-1] ** -0.5
        means = (turned_mean(x, self.axes) for x in (q_BHSD, k_BHSD))
        for axis, q_HF, k_HF in zip(self.axes, *means, strict=True):
            sum_F = scale * (q_HF * k_HF.conj()).sum(0).cpu()
            self.sums[axis.name] = self.sums.get(axis.name, torch.zeros_like(sum_F)) + sum_F

    def shares(self) -> dict[str, tuple[float, ...]]:
        """By axis: |a_j| as parts of their sum."""
        amplitudes = {name: sum_F.abs() for name, sum_F in self.sums.items()}
        return {
            name: tuple((a_F / a_F.sum().clamp(min=1e-30)).tolist())
            for name, a_F in amplitudes.items()
        }


def amplitudes(
    shares: Mapping[str, tuple[float, ...]], axes: Sequence[RotaryAxis]
) -> tuple[Amplitudes, ...]:
    """What was heard of those of a picture's axes that are longer than trained.

    What may repeat is what RDFC corrects: the frequency whose period is nearest to the trained
    length, and lower ones whose period fits into the canvas.
    """
    return tuple(
        Amplitudes(axis.name, shares[axis.name], may_repeat(axis))
        for axis in axes
        if axis.name in PICTURE and axis.length > axis.trained
    )


def corrected(heard: Sequence[Amplitudes]) -> tuple[int, ...]:
    """The frequencies that dominate on any axis."""
    return tuple(sorted({j for each in heard for j in each.dominant}))


def report(heard: Sequence[Amplitudes]) -> list[str]:
    """A line and a plot for each axis, frequencies from the highest on, and what to correct."""
    lines = ["attention at the trained size: shares of the mean logit's amplitude by frequency"]
    for each in heard:
        may = [
            f"{j} ({n:.1f} tokens, {100 * each.shares[j]:.0f} %)" for j, n in each.periods.items()
        ]
        lines.append(f"  {each.axis:<6} may repeat: {', '.join(may) or 'none'}")
        lines.append(f"  {'':<6} {_bars(each)}")
    return [*lines, f"correct: {', '.join(map(str, corrected(heard))) or 'none'}"]


def _bars(heard: Amplitudes) -> str:
    """Shares as bars, those that dominate in brackets."""
    steps, most = "▁▂▃▄▅▆▇█", max(*heard.shares, 1e-30)
    bars = [steps[math.floor(7 * share / most)] for share in heard.shares]
    return "".join(f"[{bar}]" if j in heard.dominant else bar for j, bar in enumerate(bars))
