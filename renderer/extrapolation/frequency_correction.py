"""Recursive dominant frequency correction, RDFC (UltraImage, arXiv 2512.04504): its formulas.

Positions one period apart are alike to a frequency, so content repeats with the period of the
frequency that structure hangs on, the dominant one, as soon as the canvas is longer than that.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..models.positions import PositionPolicy, RotaryAxis
from ..spec.method_options import Option
from .frequencies import PICTURE, dominant, faded, periods, policy, stretch

if TYPE_CHECKING:
    from torch import Tensor

OPTIONS: Mapping[str, Option] = {
    # Indices from 0 of what is corrected, where they are known: 9 for FLUX, 8,9 for Qwen-Image.
    "ks": Option((), "wholes", least=0),
    # Or the periods at which pictures were seen to repeat, in tokens.
    "periods": Option((), "numbers", above=0),
    # Or how many frequencies, from the one nearest to the trained length on.
    "n_rec": Option(1, least=1),
    # Or all of those, none, or those that are found to repeat,
    "mode": Option("dominant", choices=("dominant", "all", "detect", "none")),
    # by drafts of the picture, or by the amplitudes of attention at the trained size.
    "detector": Option("draft", choices=("draft", "attention")),
    "edit": Option("period", choices=("period", "divide")),
    "margin": Option(1.0, above=0, most=1),
    # Power of sigma with which the correction fades; 0: in full at every step.
    "fade": Option(0.0, least=0),
}


def corrected_positions(options: Mapping[str, Any]) -> PositionPolicy:
    """The correction that `OPTIONS` describe, on rows and columns; frames keep theirs.

    Raises `SpecError` where the options contradict each other.
    """
    named = [name for name in ("ks", "periods") if options[name]]
    named += ["mode"] if options["mode"] != "dominant" else []
    if len(named) > 1:
        raise SpecError(f"options {' and '.join(named)} both choose the frequencies; one works")

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        ks = chosen(omega_F, axis, options)
        if options["edit"] == "divide":
            return divided(omega_F, ks, axis.length, stretch(axis), options["margin"])
        return corrected(omega_F, ks, axis.length, options["margin"])

    if fade := options["fade"]:
        return policy(faded(rule, fade), PICTURE)
    return policy(rule, PICTURE, steady=True)


def chosen(omega_F: Tensor, axis: RotaryAxis, options: Mapping[str, Any]) -> list[int]:
    """Indices that the options choose on an axis longer than trained; raises `SpecError`."""
    if options["ks"]:
        if (most := max(options["ks"])) >= len(omega_F):
            raise SpecError(
                f"option ks = {most}; the {axis.name} axis has frequencies 0 to {len(omega_F) - 1}"
            )
        return list(options["ks"])
    if options["periods"]:
        return observed(omega_F, options["periods"], axis.length)
    if options["mode"] == "none":
        return []
    found = candidates(omega_F, axis.trained, axis.length)
    return found if options["mode"] == "all" else found[: options["n_rec"]]


def candidates(omega_F: Tensor, trained: float, length: int) -> list[int]:
    """The dominant frequency and lower ones, in order, whose period is shorter than the canvas.

    Higher ones would be nearer to the trained length, but to slow those down blurs.
    """
    period_F = periods(omega_F).tolist()
    return [j for j in range(dominant(omega_F, trained), len(period_F)) if period_F[j] < length]


def observed(omega_F: Tensor, lengths: Sequence[float], length: int) -> list[int]:
    """The frequencies behind observed repetition periods, each found when those before are mended.

    UltraImage, algorithm 1. What repeats with `length` or more does not repeat.
    """
    found: list[int] = []
    for seen in lengths:
        if seen < length:
            found.append(dominant(corrected(omega_F, found, length), seen))
    return sorted(set(found))


def corrected(omega_F: Tensor, ks: Sequence[int], length: int, margin: float = 1.0) -> Tensor:
    """omega_k = margin * 2 pi / length where it is more: no period of `ks` fits into the canvas.

    Frequencies may come out alike, or out of order; that is as published.
    """
    slow_F, index = omega_F.clone(), _indices(ks, omega_F)
    slow_F[index] = slow_F[index].clamp(max=margin * 2 * math.pi / length)
    return slow_F


def divided(
    omega_F: Tensor, ks: Sequence[int], length: int, scale: float, margin: float = 1.0
) -> Tensor:
    """omega_k / scale, as released for Qwen-Image; `corrected` where that is not slow enough.

    It is not where a period was shorter than the trained length.
    """
    import torch

    slow_F, index = omega_F.clone(), _indices(ks, omega_F)
    slow_F[index] /= scale
    return torch.where(periods(slow_F) < length, corrected(slow_F, ks, length, margin), slow_F)


def _indices(ks: Sequence[int], like: Tensor) -> Tensor:
    import torch

    return torch.tensor(list(ks), dtype=torch.long, device=like.device)
