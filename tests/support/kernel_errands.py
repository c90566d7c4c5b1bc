"""What the tests of kernels run in the process that interprets Triton, found there by import."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from frieze.kernels import decay, flash
from frieze.kernels.decay import Frames


def attend_and_count(
    q: Tensor, k: Tensor, v: Tensor, frames: Frames, scale: float
) -> tuple[Any, Any, int]:
    """Attention, mean logit and how often the fused kernel was called."""
    calls, fused = [], flash.attend

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return fused(*args, **options)

    flash.attend = counted
    try:
        attended = decay.attend(q, k, v, frames, scale=scale)
        mean = decay.mean_logit(q, k, frames, scale=scale)
    finally:
        flash.attend = fused
    return attended, mean, len(calls)
