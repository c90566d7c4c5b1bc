"""Recursive dominant frequency correction, RDFC (UltraImage, arXiv 2512.04504): its formulas.

Positions one period apart are alike to a frequency, so content repeats with the period of the
frequency that structure hangs on, the dominant one, as soon as the canvas is longer than that.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeVar, cast

from pydantic import Field, model_validator

from ..errors import SpecError
from ..models.positions import PositionPolicy, RotaryAxis
from .frequencies import PICTURE, dominant, faded, periods, policy, stretch
from .method import Detection, Method
from .method_options import Count, Index, MethodOptions, NotNegative, Part, Positive, Several

if TYPE_CHECKING:
    from torch import Tensor

Choice = Literal["dominant", "all", "detect", "none"]


class Correction(MethodOptions):
    """Options of the correction but the one that says which frequencies: see `chooser`."""

    chooser: ClassVar[str] = "mode"

    ks: Several[Index] = Field(
        default=(),
        description="indices from 0 of the frequencies to correct: 9 for FLUX, 8,9 for "
        "Qwen-Image; default: chosen otherwise",
    )
    periods: Several[Positive] = Field(
        default=(),
        description="or the periods at which pictures were seen to repeat, in tokens; "
        "default: chosen otherwise",
    )
    n_rec: Count = Field(
        default=1,
        description="or how many frequencies, from the one nearest to the trained length on",
    )
    detector: Literal["draft", "attention"] = Field(
        default="draft",
        description="what finds those that repeat: drafts of the picture, or the amplitudes of "
        "attention at the trained size",
    )
    edit: Literal["period", "divide"] = Field(
        default="period", description="slow them down to the canvas' length, or by its stretch"
    )
    margin: Part = Field(default=1.0, description="part of the slowed frequency that is kept")
    fade: NotNegative = Field(
        default=0.0,
        description="power of sigma with which the correction fades; 0: in full at every step",
    )

    @model_validator(mode="after")
    def _chooses_once(self) -> Self:
        named = [name for name in ("ks", "periods") if getattr(self, name)]
        named += [self.chooser] if self.choice != "dominant" else []
        if len(named) > 1:
            raise ValueError(
                f"options {' and '.join(named)} both choose the frequencies; one works"
            )
        return self

    @property
    def choice(self) -> Choice:
        """Which frequencies are corrected, unless `ks` or `periods` say."""
        return cast(Choice, getattr(self, self.chooser))

    def with_detected(self, ks: Sequence[int]) -> Self:
        """The options with the frequencies that were found, in the place of the wish to find them.

        Raises `SpecError` for what no frequency's index is.
        """
        if not ks:
            return self.changed(**{self.chooser: "none"})
        return self.changed(**{self.chooser: "dominant", "ks": tuple(ks)})


class CorrectionOptions(Correction):
    """Options of the correction alone."""

    mode: Choice = Field(
        default="dominant",
        description="or the dominant one, all that repeat, those that are detected, or none",
    )


OptionsT = TypeVar("OptionsT", bound=Correction)


def detection(options: OptionsT, of: Callable[[OptionsT], Method]) -> Detection | None:
    """How the frequencies are to be found, if the options wish it; `of` makes the method of them.

    Until then the method corrects what it would by default.
    """
    if options.choice != "detect":
        return None

    def settled(ks: Sequence[int]) -> Method:
        return of(options.with_detected(ks))

    return Detection(options.detector, settled)


def corrected_positions(options: Correction) -> PositionPolicy:
    """The correction of these options, on rows and columns; frames keep theirs."""

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        ks = chosen(omega_F, axis, options)
        if options.edit == "divide":
            return divided(omega_F, ks, axis.length, stretch(axis), options.margin)
        return corrected(omega_F, ks, axis.length, options.margin)

    if options.fade:
        return policy(faded(rule, options.fade), PICTURE)
    return policy(rule, PICTURE, steady=True)


def chosen(omega_F: Tensor, axis: RotaryAxis, options: Correction) -> list[int]:
    """Indices that the options choose on an axis longer than trained; raises `SpecError`."""
    if options.ks:
        if (most := max(options.ks)) >= len(omega_F):
            raise SpecError(
                f"option ks = {most}; the {axis.name} axis has frequencies 0 to {len(omega_F) - 1}"
            )
        return list(options.ks)
    if options.periods:
        return observed(omega_F, options.periods, axis.length)
    if options.choice == "none":
        return []
    found = candidates(omega_F, axis.trained, axis.length)
    return found if options.choice == "all" else found[: options.n_rec]


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
