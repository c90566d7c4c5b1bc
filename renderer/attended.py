"""One step at the trained size, listened to: which frequencies the model's attention hangs on.

Unlike drafts it draws nothing at the picture's size, so that it takes as long at any; it looks at
pure noise. One worker does it, with the model to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from frieze.cluster.comm import solo
from frieze.cluster.layout import Band
from frieze.cluster.strategies.bands import predict

from . import amplitudes, drafts, finite, loaded
from .amplitudes import Amplitudes, Ear
from .drafts import Tell, rotary_axes
from .errors import PlanError
from .family import Place
from .launching import apart, session
from .listener import Listener
from .method import trained
from .plan import CanvasPlan, plan
from .precision import exactly
from .sampling import stage_seed


def attend(made: CanvasPlan, tell: Tell = lambda text: None) -> tuple[Amplitudes, ...]:
    """What dominates on the axes of a plan's picture that are longer than trained.

    Raises `PlanError` for models without rotary positions, and for those that animate a picture.
    """
    axes = rotary_axes(made)
    if not axes:
        raise PlanError(
            f"{made.facts.family} has no rotary positions whose frequencies could be found"
        )
    if not can_attend(made):
        raise PlanError(
            "detector attention: a model that animates a first frame is not listened to; "
            "draft works"
        )
    if all(axis.length <= axis.trained for axis in axes):
        return ()
    small = _small(made)
    tell(f"one step at {small.spec.width}x{small.spec.height}, listened to")
    with session(small):
        return amplitudes.amplitudes(apart(small, listened, small), axes)


def examine(made: CanvasPlan, detector: str | None, tell: Tell) -> dict[str, Any]:
    """What attention and drafts say of a plan's picture; by default both, unless drafts take long.

    By "attention" `Amplitudes` of each axis, by "rounds" those of drafts.
    """
    found: dict[str, Any] = {}
    if detector == "attention" or (detector is None and can_attend(made)):
        found["attention"] = attend(made, tell)
    if detector == "draft" or not found or (detector is None and drafts.are_cheap(made)):
        found["rounds"] = drafts.detect(made, tell)
    elif detector is None:
        tell("no drafts at this size, where they take long; --detector draft makes them")
    return found


def report(found: Mapping[str, Any]) -> list[str]:
    """What was found, in lines, with plots."""
    lines = []
    if "attention" in found:
        lines += amplitudes.report(found["attention"])
    if "rounds" in found:
        lines += drafts.report(found["rounds"])
    return lines


def settled(made: CanvasPlan, listener: Listener) -> CanvasPlan:
    """The plan with the frequencies that are found to repeat, if its method asks for them."""
    if not drafts.detects(made):
        return made

    def tell(text: str) -> None:
        listener.say("note", message=text)

    if made.spec.method_options.get("detector") == "attention":
        shares = attend(made, tell)
        lines, detected = amplitudes.report(shares), amplitudes.corrected(shares)
    else:
        rounds = drafts.detect(made, tell, listener.cancel)
        lines, detected = drafts.report(rounds), rounds[-1].corrected
    for text in lines:
        tell(text)
    return plan(made.spec, sources=made.sources, detected=detected)


def can_attend(made: CanvasPlan) -> bool:
    """Whether a model draws from its prompt alone, and can be listened to."""
    needs_image = made.facts.takes_image and not made.facts.image_optional
    return not needs_image and "image" not in made.sources


def _small(made: CanvasPlan) -> CanvasPlan:
    """The same prompt at the trained size, one picture on one worker."""
    side = made.facts.training_size // made.facts.latent.unit * made.facts.latent.unit
    changes: dict[str, Any] = {
        "height": side,
        "width": side,
        "num_frames": 1,
        "init": None,
        "method": "none",
        "method_options": {},
        "stages": None,
        "workers": 1,
        "max_workers": None,
        "ulysses": 1,
        "guidance_ranks": 1,
    }
    return plan(made.spec.model_copy(update=changes))


@exactly
def listened(small: CanvasPlan) -> dict[str, tuple[float, ...]]:
    """By axis every frequency's share of the mean logit's amplitude, at the first step."""
    spec, stage = small.spec, small.stages[0]
    device, canvas, level = loaded.device_of(spec), stage.canvas, stage.levels[0]
    prompt = loaded.encode_prompts(small, None)[stage.prompt].on(device)
    model = loaded.model(small.facts, spec, device)
    shape = (1, small.facts.latent.channels, canvas.frames, canvas.height, canvas.width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(stage_seed(spec.seed, 0)))
    band = Band(0, canvas.height)
    place = Place(band, canvas, trained)
    ear = Ear(model.axes(place))
    x0 = predict(
        lambda x, at: model.denoised(x, at, prompt.halves[0], place, stage.guidance),
        noise.to(device) * stage.table.scale,
        level,
        solo(),
        bands=(band,),
        marks=model.denoiser_marks(level),
        tuning=ear,
    )
    if not finite.is_finite([x0]):
        raise finite.error("the model's estimate", f"a step at {spec.width}x{spec.height}", spec)
    return ear.shares()
