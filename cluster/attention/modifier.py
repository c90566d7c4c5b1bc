"""What a method may do to attention over a canvas: queries and keys scaled, spread measured, decay.

Shape suffixes: B batch, H heads, S tokens, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from frieze.kernels.decay import Decay

from .key_turns import KeyTurns
from .scale_fusion import AttentionShape


@dataclass(frozen=True)
class AttentionChange:
    """What one attention of a marked layer is to be: decided once, before any of it is computed.

    Another kind of attention is a field more here, None where nothing changes, and a branch more
    at the end of `attend` in bands/attention.py.
    """

    # Queries and keys to attend with: this rank's tokens, text included, rotated, with all heads.
    q_BHSD: Tensor
    k_BHSD: Tensor
    # What the logits of all heads are multiplied by. It costs nothing: the softmax has a scale.
    factor: float = 1.0
    # How logits between image tokens decay with their distance in frames of tokens.
    decay: Decay | None = None
    # Receives the entropy_BH of these queries and keys, as `canvas_entropy` has it: float64, the
    # same bits on every rank.
    probe: Callable[[Tensor], None] | None = None
    # Tokens to a side of the blocks whose entropy is measured; None measures tokens.
    pooled: int | None = None
    # What the image's queries ask instead of the whole canvas, from the rows and columns that the
    # layer's tokens make on it. It does not go with decay, and the probe is still of the canvas,
    # through what is pooled of it.
    shape: Callable[[int, int], AttentionShape | None] | None = None
    # Where the image's keys stand for each tile of its queries. It goes with none of the three.
    turns: KeyTurns | None = None

    @property
    def keeps_logits(self) -> bool:
        """Whether the plain function, of these queries and keys and this scale, is all of it."""
        return self.decay is None and self.turns is None

    def scaled(self, scale: float | None) -> float | None:
        """The scale of the logits, from the call's own; None stands for D ** -0.5."""
        if self.factor == 1.0:
            return scale
        return (self.q_BHSD.shape[-1] ** -0.5 if scale is None else scale) * self.factor


class Unmodified:
    """Attention as it is, where it is only to be met: of regions that ask different texts."""

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """The queries and keys themselves."""
        return AttentionChange(q_BHSD, k_BHSD)


class AttentionModifier(Protocol):
    """How the attention of marked layers is changed and measured, inside one `BandMode`."""

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """What the attention of a layer is to be, given its own queries and keys.

        It is asked on every rank, before every attention of a marked layer, for the same layers
        in the same order, and must answer alike; on text tokens it must make the same bits of
        the same bits. Shapes and dtypes stay; the tensors themselves mean that nothing changes.
        """
        ...
