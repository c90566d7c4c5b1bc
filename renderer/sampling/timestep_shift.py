"""The timestep shift of rectified flow: how much longer a larger canvas stays noisy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from .noise_levels import NoiseSchedule

Sigma = TypeVar("Sigma", float, "Tensor")


def shifted(sigma: Sigma, alpha: float) -> Sigma:
    """t' = alpha t / (1 + (alpha - 1) t) (SD3, arXiv 2403.03206, eq. 23)."""
    return alpha * sigma / (1 + (alpha - 1) * sigma)


def unshifted(sigma: Sigma, alpha: float) -> Sigma:
    """The inverse of `shifted`: shifting by 1 / alpha."""
    return shifted(sigma, 1 / alpha)


def alpha_for(schedule: NoiseSchedule, tokens: int, training_tokens: int, num_steps: int) -> float:
    """The shift alpha at a canvas of so many image tokens.

    Up to the trained size it is the checkpoint's own. Beyond, it grows by sqrt(m / n), at
    which the noise hides as much of m tokens as of n (SD3, sec. 5.3.2). The checkpoint's
    linear mu must not be extrapolated: at 4096 x 4096 px it would leave one effective step.
    """
    options = schedule.options
    if not options.get("use_dynamic_shifting", False):
        own = "shift" if options["_class_name"].startswith("FlowMatch") else "flow_shift"
        return float(options.get(own, 1.0) * math.sqrt(max(1.0, tokens / training_tokens)))
    most = training_tokens if schedule.mu else options.get("max_image_seq_len", 4096)
    known = min(tokens, most)
    mu = _flux2_mu(known, num_steps) if schedule.mu else _linear_mu(options, known)
    alpha = math.exp(mu) if options.get("time_shift_type", "exponential") == "exponential" else mu
    return float(alpha * math.sqrt(tokens / known))


def _linear_mu(options: Mapping[str, Any], tokens: int) -> float:
    low, high = options.get("base_shift", 0.5), options.get("max_shift", 1.15)
    least, most = options.get("base_image_seq_len", 256), options.get("max_image_seq_len", 4096)
    return float(low + (high - low) / (most - least) * (tokens - least))


def _flux2_mu(tokens: int, num_steps: int) -> float:
    """FLUX.2's fit: a line in tokens at 10 and at 200 steps, and between them a line in steps."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_200 + (at_200 - at_10) / 190 * (num_steps - 200)


def flow_sigmas(even: Sequence[float], alpha: float, start: float = 1.0) -> list[float]:
    """Falling sigmas from `start`, spaced as `even` (which begins at 1) before the shift."""
    top = unshifted(start, alpha)
    return [shifted(top * t, alpha) for t in even]


def even_sigmas(schedule: NoiseSchedule, num_steps: int) -> list[float]:
    """What a stock pipeline shifts: its own linspace, or its scheduler's."""
    import numpy as np

    options = schedule.options
    floor = 1 / options.get("num_train_timesteps", 1000)
    made: np.ndarray
    if schedule.solver == "unipc":
        made = np.linspace(1, floor, num_steps + 1)[:-1]
    elif schedule.solver == "dpm":
        made = (1 - np.linspace(1, floor, num_steps + 1))[:0:-1]
    elif schedule.explicit_sigmas:
        made = np.linspace(1, 1 / num_steps, num_steps)
    else:
        # The scheduler's least sigma is shifted when it is made, and again with all others.
        if not options.get("use_dynamic_shifting", False):
            floor = shifted(floor, options.get("shift", 1.0))
        made = np.linspace(1, floor, num_steps)
    return [float(value) for value in made]
