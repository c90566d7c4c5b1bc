"""Strategies: one file per way to spread a canvas; each defines `predict`.

A strategy is called at every step on every rank of a canvas, once for each prompt that the rank
evaluates. It decides what a rank's rows learn of all others: everything, so that they are those of
the whole canvas (`bands`), or less. Its ranks talk through the communicators that it is given and
through nothing else. Another distribution adds one by an entry point in `frieze.strategies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..attention import AttentionModifier
    from ..bands import Marks
    from ..comm import AxisComms
    from ..layout import Band


class Strategy(Protocol):
    """What a file in this folder, or a module behind an entry point, must define."""

    @staticmethod
    def predict(
        denoised: Callable[[Tensor, Any], Tensor],
        x: Tensor,
        level: Any,
        comm: AxisComms,
        *,
        bands: Sequence[Band],
        marks: Sequence[Marks],
        modifier: AttentionModifier | None,
    ) -> Tensor:
        """This rank's rows of the network's estimate of the whole canvas, shaped as `x`.

        `x` [B, C, (T,) H, W] are the rows `bands[comm.world.rank]` of the canvas, in latent
        pixels; `bands` are those of all ranks, from the top, without a gap.
        `denoised(x, level)` runs the network on a tensor of these rows.
        `marks` say which layers of the network mix rows, and how. `modifier` changes and measures
        the attention of the marked layers; None: nothing is changed.
        All ranks of the canvas call it, in the same order. Between any two calls the render may be
        resumed or cut anew: what is kept from one to the next must not be needed.
        """
