"""Run one step at the trained size and measure which rotary frequencies dominate attention.

Unlike drafts it draws nothing at the picture's size, so that it takes as long at any; it looks at
pure noise. One worker does it, with the model to itself.
"""

from __future__ import annotations

from typing import Any

import torch

from frieze.cluster.bands import band_mode
from frieze.cluster.comm import axis_comms, solo
from frieze.cluster.layout import Band

from ..driver.workers import run_isolated, session
from ..errors import PlanError
from ..models import finite
from ..models.family import BandPlace
from ..models.positions import trained
from ..planning.canvas_plan import CanvasPlan
from ..planning.plan import plan
from ..sampling.solvers import stage_seed
from ..worker import model_cache, prompt_encoding
from ..worker.precision import exactly
from . import logit_amplitudes
from .drafts import Tell, rotary_axes
from .logit_amplitudes import AmplitudeProbe, Amplitudes


def attend(plan: CanvasPlan, tell: Tell = lambda text: None) -> tuple[Amplitudes, ...]:
    """What dominates on the axes of a plan's picture that are longer than trained.

    Raises `PlanError` for models without rotary positions, and for those that animate a picture.
    """
    axes = rotary_axes(plan)
    if not axes:
        raise PlanError(
            f"{plan.facts.family} has no rotary positions whose frequencies could be found"
        )
    if not can_attend(plan):
        raise PlanError(
            "detector attention: a model that animates a first frame is not listened to; "
            "draft works"
        )
    if all(axis.length <= axis.trained for axis in axes):
        return ()
    small = _small(plan)
    tell(f"one step at {small.spec.width}x{small.spec.height}, listened to")
    with session(small):
        return logit_amplitudes.amplitudes(run_isolated(small, attention_amplitudes, small), axes)


def can_attend(plan: CanvasPlan) -> bool:
    """Whether a model draws from its prompt alone, and can be listened to."""
    needs_image = plan.facts.takes_image and not plan.facts.image_optional
    needs_image = needs_image or plan.facts.inpaints
    return not needs_image and "image" not in plan.sources


def _small(canvas_plan: CanvasPlan) -> CanvasPlan:
    """The same prompt at the trained size, one picture on one worker."""
    side = (
        canvas_plan.facts.training_size
        // canvas_plan.facts.latent.unit
        * canvas_plan.facts.latent.unit
    )
    changes: dict[str, Any] = {
        "height": side,
        "width": side,
        "num_frames": 1,
        "init": None,
        "mask": None,
        "resize_mask": False,
        "feather": None,
        "resamplings": None,
        "place": None,
        "edit": (),
        "edit_stage": 1,
        "method": "none",
        "method_options": {},
        "stages": None,
        "strategy": "bands",
        "strategy_options": {},
        "workers": 1,
        "max_workers": None,
        "ulysses": 1,
        "guidance_ranks": 1,
    }
    return plan(canvas_plan.spec.model_copy(update=changes))


@exactly
def attention_amplitudes(small: CanvasPlan) -> dict[str, tuple[float, ...]]:
    """By axis every frequency's share of the mean logit's amplitude, at the first step."""
    spec, stage = small.spec, small.stages[0]
    device, canvas, level = model_cache.device_of(spec), stage.canvas, stage.levels[0]
    prompt = prompt_encoding.encode_prompts(small, None)[stage.prompt].on(device)
    model = model_cache.model(small.facts, spec, device)
    shape = (1, small.facts.latent.channels, canvas.frames, canvas.height, canvas.width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(stage_seed(spec.seed, 0)))
    band = Band(0, canvas.height)
    place = BandPlace(band, canvas, trained)
    probe = AmplitudeProbe(model.axes(place))
    marks = model.denoiser_marks(level)
    with band_mode(axis_comms(solo()), (band,), marks=marks, canvas=canvas, modifier=probe):
        x = noise.to(device) * stage.table.scale
        x0 = model.denoised(x, level, prompt.halves[0], place, stage.guidance)
    if not finite.is_finite([x0]):
        raise finite.error("the model's estimate", f"a step at {spec.width}x{spec.height}", spec)
    return probe.shares()
