"""Drafts of a few steps, observed for repetition before a picture is drawn.

A draft is a render of the same picture at its full size, so that it repeats as the picture would;
it ends before anything is decoded. On any number of workers it is the same picture.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from frieze.cluster.layout import Band

from ..driver.caller import RenderHandle
from ..driver.driver import Driver
from ..errors import PlanError, RenderCancelledError
from ..extrapolation.frequency_correction import CorrectionOptions
from ..files.scratch import scratch
from ..models.family import BandPlace
from ..models.positions import RotaryAxis, trained
from ..planning.canvas_plan import CanvasPlan
from ..spec.render_spec import RenderSpec
from .autocorrelation import Observation, Round, observed, recursion

STEPS = 4
# Drafts that are observed together; each has another seed.
NUMBER = 2
# Of canvases with more tokens than so many times the trained ones none are made unasked.
MOST_TIMES = 4

Tell = Callable[[str], None]


def are_cheap(plan: CanvasPlan) -> bool:
    """Whether drafts take a moment: their attention grows with the square of the tokens."""
    canvas, patch = plan.stages[-1].canvas, plan.facts.latent.patch
    tokens = canvas.height * canvas.width // patch**2
    return tokens <= MOST_TIMES * plan.facts.training_tokens


def rotary_axes(plan: CanvasPlan) -> tuple[RotaryAxis, ...]:
    """The rotary axes of the model on the whole picture; none where it rotates nothing."""
    if not plan.facts.rotary:
        return ()
    from ..planning import meta_render

    stage = plan.stages[-1]
    return meta_render.axes(
        plan.facts, plan.spec, BandPlace(Band(0, stage.canvas.height), stage.canvas, trained)
    )


def detect(
    plan: CanvasPlan, tell: Tell = lambda text: None, cancel: threading.Event | None = None
) -> list[Round]:
    """Which frequencies of a plan's model must be corrected at its size; the last round says.

    Raises `PlanError` for models without rotary positions and what `render` raises.
    """
    axes = rotary_axes(plan)
    if not axes:
        raise PlanError(
            f"{plan.facts.family} has no rotary positions whose frequencies could be found"
        )
    patch = plan.facts.latent.patch

    def observe(ks: tuple[int, ...]) -> Sequence[Observation]:
        tell(f"{NUMBER} drafts of {STEPS} steps, frequencies corrected: {_listed(ks)}")
        drafts = [draft(plan.spec, ks, number, cancel) for number in range(NUMBER)]
        return observed(drafts, axes, patch)

    if all(axis.length <= axis.trained for axis in axes):
        return [Round((), ())]
    return recursion(axes, observe)


def draft(
    spec: RenderSpec, ks: Sequence[int], number: int, cancel: threading.Event | None
) -> Tensor:
    """Latents [C, T, H, W] of a picture after a few steps, with frequencies corrected."""
    kept: list[Tensor] = []
    stopped = cancel or threading.Event()

    def after(handle: RenderHandle, step: int, *_: Any) -> None:
        if step + 1 == STEPS:
            kept.append(handle.latents())
        handle.interrupt = step + 1 == STEPS or stopped.is_set()

    with scratch(_beside(spec), "frieze-draft") as folder:
        small = _drafted(spec, ks, number, str(folder / "draft.zarr"))
        with contextlib.suppress(RenderCancelledError):
            Driver(None, None, after).render(small, ())
    if stopped.is_set() or not kept:
        raise RenderCancelledError("stopped as asked; nothing was drawn yet")
    return kept[0]


def _drafted(spec: RenderSpec, ks: Sequence[int], number: int, out: str) -> RenderSpec:
    """The render of a draft: one stage from noise, as a picture, of another seed for each."""
    told = CorrectionOptions(ks=tuple(ks)).model_dump(mode="json", exclude_unset=True)
    corrects: dict[str, Any] = {"method": "rdfc", "method_options": told}
    changes = corrects if ks else {"method": "none", "method_options": {}}
    changes |= {
        "stages": None,
        "num_inference_steps": STEPS,
        "num_frames": 1 if spec.image is None else spec.num_frames,
        "init": None,
        "mask": None,
        "resize_mask": False,
        "feather": None,
        "resamplings": None,
        "place": None,
        "edit": (),
        "edit_stage": 1,
        "seed": (spec.seed + number) % 2**63,
        "save_every": STEPS,
        "out": out,
        "overwrite": False,
    }
    return spec.model_copy(update=changes)


def _beside(spec: RenderSpec) -> Path | None:
    """Where all workers can see a draft's store: beside the picture's own.

    Raises `PlanError` for buckets.
    """
    if spec.local:
        return None
    if "://" in spec.out:
        raise PlanError(
            f"out {spec.out!r}: drafts need a folder that all workers see; find the frequencies "
            "with frieze doctor --size, and give them as --option ks=..."
        )
    return Path(spec.out).absolute().parent


def report(rounds: Sequence[Round]) -> list[str]:
    """What was found, in lines, each observed axis with a plot of its correlation by lag."""
    lines = []
    for number, each in enumerate(rounds, 1):
        lines.append(f"round {number}: frequencies corrected: {_listed(each.corrected)}")
        for seen in each.seen:
            what = "does not repeat" if seen.period is None else f"repeats after {seen.period}"
            lines += [f"  {seen.axis:<6} {what}, lags 1 to {len(seen.profile) - 1} in tokens"]
            lines += [f"  {'':<6} {bars(seen.profile[1:], seen.period)}"]
    return [*lines, f"correct: {_listed(rounds[-1].corrected)}"]


def bars(values: Sequence[float], marked: int | None = None) -> str:
    """Correlations from -1 to 1 as one line of bars, the marked one (from 1) in brackets."""
    steps = "▁▂▃▄▅▆▇█"
    drawn = [steps[min(7, max(0, int((value + 1) * 4)))] for value in values]
    if marked is not None:
        drawn[marked - 1] = f"[{drawn[marked - 1]}]"
    return "".join(drawn)


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks)) or "none"
