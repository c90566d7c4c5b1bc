"""What may be done to attention over a canvas: queries and keys scaled, spread measured, decay.

Shape suffixes: B batch, H heads, S tokens, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from frieze.kernels.decay import Decay


class AttentionModifier(Protocol):
    """How the attention of marked layers is changed and measured, inside one `BandMode`.

    It is asked on every rank, for the same layers in the same order, and must answer alike: on
    text tokens it must make the same bits of the same bits.
    """

    def tuned(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> tuple[Tensor, Tensor]:
        """The queries and keys to attend with instead, of the same shapes and dtype.

        They are this rank's tokens, text included, rotated, with all heads.  Called before every
        attention of a marked layer; the tensors themselves mean that nothing changes.
        """
        ...

    def factor(self, num_tokens: int) -> float:
        """What the logits of all heads are multiplied by; 1 changes nothing.

        `num_tokens` are this rank's, text included.  It costs nothing: the softmax has a scale.
        """
        ...

    @property
    def probe(self) -> Callable[[str, Tensor], None] | None:
        """Receives (layer, entropy_BH) of every such attention, as tuned; None measures nothing.

        The entropy is that of `canvas_entropy`: float64, the same bits on every rank.
        """
        ...

    @property
    def pooled(self) -> int | None:
        """Tokens to a side of the blocks whose entropy is measured; None measures tokens."""
        ...

    @property
    def decay(self) -> Decay | None:
        """How logits between image tokens decay with their distance in frames of tokens."""
        ...
