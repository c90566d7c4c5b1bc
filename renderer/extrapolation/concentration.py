"""Factors on attention logits: one for each head from its entropy, or one for all from the tokens.

Shape suffixes: L layers, H heads.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from .method import Focus
from .method_options import Index, MethodOptions, Number

if TYPE_CHECKING:
    from torch import Tensor

WAN_TOKENS, STEP_TOKENS = 45 * 80, 10_000  # of a latent frame as trained; between two scales


class ConcentrationOptions(MethodOptions):
    """How strongly heads are concentrated, and over what their entropies are measured."""

    least: Number = Field(
        default=1.0, description="factor on the logits of the head that looks everywhere"
    )
    most: Number = Field(default=1.3, description="factor on those of the head that looks at least")
    power: Number = Field(default=2.0, description="exponent of the curve between them")
    pooled: Index = Field(
        default=0,
        description="tokens on a side of the blocks that entropies are pooled over; 0: none",
    )

    def focus(self, lowest: float | None = None, highest: float | None = None) -> Focus:
        """The concentration of these options; the extremes are entropies in nats, as below."""
        scale = partial(
            concentration,
            least=self.least,
            most=self.most,
            power=self.power,
            lowest=lowest,
            highest=highest,
        )
        return Focus(scale=scale, pooled=self.pooled or None)


def concentration(
    entropy_LH: Tensor,
    *,
    least: float = 1.0,
    most: float = 1.3,
    power: float = 2.0,
    lowest: float | None = None,
    highest: float | None = None,
) -> Tensor:
    """lambda = least + (most - least) ((highest - H) / (highest - lowest))^power.

    UltraImage's EAAC (arXiv 2512.04504, eq. 11): heads that look at little are made to look at
    less, those that look everywhere are left alone. Entropies are nats; `lowest` and `highest`
    are those of all heads of all layers unless given, as the released code gives them. NaN stands
    for heads that do not exist.
    """
    import torch

    known = entropy_LH[~entropy_LH.isnan()]
    low = float(known.min()) if lowest is None else lowest
    high = float(known.max()) if highest is None else highest
    focused_LH = ((high - entropy_LH) / max(high - low, 1e-6)).clamp(0, 1)
    return torch.as_tensor(least + (most - least) * focused_LH**power)


def proportional(tokens: int, trained_tokens: int) -> float:
    """sqrt(ln N / ln N0): keeps entropy as tokens grow (Jin et al. 2023, arXiv 2306.08645)."""
    return math.sqrt(max(1.0, math.log(tokens) / math.log(trained_tokens)))


def stepped(tokens: int, ratios: tuple[float, ...] = (1.5, 2.0)) -> float:
    """CineScale's scale as released for Wan, from the image tokens of one latent frame.

    ln(c N0) / ln N0 of N0 = 45 x 80, those of 720 x 1280; c is the first ratio past 10,000 tokens,
    the second past 20,000 and so on, 1 up to and at 10,000.
    """
    passed = min((tokens - 1) // STEP_TOKENS, len(ratios))
    return logarithmic(ratios[passed - 1], WAN_TOKENS) if passed > 0 else 1.0


def by_tokens(tokens: int, known: int) -> float:
    """ln N / ln N0: the law whose steps CineScale released, from tokens and known ones."""
    return logarithmic(tokens / known, known)


def logarithmic(ratio: float, trained_tokens: int) -> float:
    """ln(c N0) / ln N0, without a root: CineScale's scale for c times the tokens."""
    return max(1.0, math.log(ratio * trained_tokens) / math.log(trained_tokens))
