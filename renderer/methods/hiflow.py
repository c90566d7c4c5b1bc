"""HiFlow (arXiv 2504.06232): sizes double, each stage led by the steps of the one before it.

Every stage restarts from its predecessor, enlarged and noised to the first of the last 16, then
10, of 30 steps, and follows that stage's x0 of the same time in its low frequencies and in its
pace. NTK positions with a factor of 10 go with it. The enlarged picture is not sharpened.
Shape suffixes: F frequencies of one axis.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import doublings, stages_of
from ..extrapolation.frequencies import PICTURE, ntk, policy, stretch
from ..extrapolation.guides import Flow
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import (
    AtLeastOne,
    Count,
    MethodOptions,
    NotNegative,
    Positive,
    Several,
)
from ..models.positions import RotaryAxis, trained
from ..sampling.timestep_shift import alpha_for, shifted
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

# Parts of the steps that are left to the second, third and every later stage.
LEFT = (16 / 30, 10 / 30)


class Options(MethodOptions):
    """Of HiFlow."""

    align: Several[NotNegative] = Field(
        default=(1.0, 0.25),
        description="how much of the low frequencies is the stage's before, at its first step; "
        "one for each stage after the first",
    )
    accelerate: NotNegative = Field(
        default=0.5, description="how much of its pace is the stage's before, at its first step"
    )
    cutoff: Positive = Field(
        default=0.2, description="of the low-pass, in parts of Nyquist's frequency"
    )
    order: Count = Field(default=4, description="of the Butterworth low-pass")
    factor: AtLeastOne = Field(default=10.0, description="what the rotary base is multiplied by")


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Doubling stages; the factor of NTK is clipped at position interpolation.

    Models without rotary positions are guided only.
    """
    options = Options.read(spec)

    def rule(axis: RotaryAxis, omega_F: Tensor, sigma: float) -> Tensor:
        return ntk(omega_F, options.factor).maximum(omega_F / stretch(axis))

    return Method(
        stages=stages_of(spec, doubling(spec, facts)),
        positions=policy(rule, PICTURE, steady=True) if facts.rotary else trained,
        guide=Flow(options.align, options.accelerate, options.cutoff, options.order),
    )


def doubling(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """Stages 1/2^k .. 1/2, 1, the first one no larger than the trained area."""
    levels = doublings(spec, facts)
    stages = [Stage(scale=0.5**levels)]
    for index in range(levels):
        left = LEFT[min(index, len(LEFT) - 1)]
        stage = Stage(scale=0.5 ** (levels - 1 - index))
        steps = max(1, round(left * spec.num_inference_steps))
        start = _start(stage, steps / spec.num_inference_steps, spec, facts)
        stages.append(dataclasses.replace(stage, start=start, steps=steps))
    return tuple(stages)


def _start(stage: Stage, left: float, spec: RenderSpec, facts: ModelFacts) -> float:
    """The noise level at which so much of all steps is left; of other models than flow, just it."""
    if not facts.schedule.flow:
        return left
    frames = facts.latent.frames(spec.num_frames)
    pixels = stage.scale**2 * spec.height * spec.width
    tokens = max(1, round(frames * pixels / facts.latent.unit**2))
    num_steps = spec.num_inference_steps
    alpha = spec.shift or alpha_for(facts.schedule, tokens, facts.training_tokens, num_steps)
    return shifted(left, alpha)
