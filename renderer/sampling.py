"""Sigma schedules, timestep shifts and solvers for rectified flow: plain functions.

x_sigma = (1 - sigma) x0 + sigma eps. A solver sees only `denoised`, never what was predicted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .family import FlowSchedule

if TYPE_CHECKING:
    from torch import Tensor


def shifted(sigma: float, alpha: float) -> float:
    """t' = alpha t / (1 + (alpha - 1) t) (SD3, arXiv 2403.03206, eq. 23)."""
    return alpha * sigma / (1 + (alpha - 1) * sigma)


def unshifted(sigma: float, alpha: float) -> float:
    """The inverse of `shifted`: shifting by 1 / alpha."""
    return shifted(sigma, 1 / alpha)


def alpha_for(schedule: FlowSchedule, tokens: int, training_tokens: int) -> float:
    """The shift alpha at a canvas of so many image tokens.

    Up to the trained size it is the checkpoint's own. Beyond, it grows by sqrt(m / n), at
    which the noise hides as much of m tokens as of n (SD3, sec. 5.3.2). The checkpoint's
    linear mu must not be extrapolated: at 4096 x 4096 px it would leave one effective step.
    """
    if not schedule.dynamic:
        return schedule.shift * math.sqrt(max(1.0, tokens / training_tokens))
    known = min(tokens, schedule.max_tokens)
    slope = (schedule.max_shift - schedule.base_shift) / (
        schedule.max_tokens - schedule.base_tokens
    )
    mu = schedule.base_shift + slope * (known - schedule.base_tokens)
    return math.exp(mu) * math.sqrt(tokens / known)


def flow_sigmas(num_steps: int, alpha: float, start: float = 1.0) -> tuple[float, ...]:
    """num_steps + 1 falling sigmas from `start` to 0, even before the shift.

    At start 1 these are the pipelines' linspace(1, 1/N, N), shifted once, and a final 0.
    """
    top = unshifted(start, alpha)
    even = (top * (num_steps - i) / num_steps for i in range(num_steps))
    return (*(shifted(t, alpha) for t in even), 0.0)


def euler(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """One Euler step of dx/dsigma = (x - x0) / sigma (Karras et al. 2022, Algorithm 2)."""
    return x + (x - denoised) * ((sigma_next - sigma) / sigma)


def noised(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """x_sigma = (1 - sigma) x0 + sigma eps."""
    return (1 - sigma) * clean + sigma * noise
