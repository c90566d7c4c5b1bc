"""Texts that a network is trained without, so that it can draw without one, or one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Of each encoder (SD3, arXiv 2403.03206, sec. B.3): of three, a tenth of the pictures has none.
SD3_PROBABILITY = 0.464


def kept(encoded: Sequence[Tensor], probability: float, u_EB: Tensor) -> list[Tensor]:
    """What E encoders made of B texts, [B, ...] each, zero where an encoder is dropped.

    `u_EB` are uniform numbers in [0, 1): each encoder is dropped for each text on its own, with
    the `probability` given. Raises ValueError unless that is in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability:g} of text dropout; 0 to 1 works")
    parts = []
    for output, u_B in zip(encoded, u_EB, strict=True):
        stays_B = (u_B >= probability).to(output)
        parts.append(output * stays_B.view(-1, *[1] * (output.ndim - 1)))
    return parts
