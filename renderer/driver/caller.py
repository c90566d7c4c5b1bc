"""Whoever started a render: is told what happens, may stop it, and is called after each step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..events import Event, Kind
from ..files.location import Location
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.fleet import Fleet

    from ..planning.canvas_plan import CanvasPlan


@dataclass(frozen=True)
class RenderResult:
    """What a render left behind and what it cost.

    `seconds` is wall time of this call; `peak_bytes` the largest worker's peak memory;
    `estimated_bytes` what the plan had said of it, where it was near enough to ask.
    """

    path: Location
    outputs: tuple[Location, ...]
    seconds: float
    peak_bytes: int
    estimated_bytes: int | None
    num_blocks: int


class RenderHandle:
    """What `callback_on_step_end` gets in the place of diffusers' pipeline."""

    def __init__(self, spec: RenderSpec, latents: Callable[[], Tensor]) -> None:
        self.spec = spec
        self.interrupt = False
        self._latents = latents

    def latents(self) -> Tensor:
        """The whole canvas's latents [C, 1, H, W], gathered here on demand only."""
        return self._latents()


# (handle, step index over all stages, timestep in [0, 1000], {}) -> ignored.
StepCallback = Callable[[RenderHandle, int, float, Mapping[str, Any]], object]


class Caller:
    """Who is told, who may stop the render, and who is called after each step."""

    def __init__(
        self,
        tell: Callable[[Event], None],
        cancel: threading.Event | None,
        callback: StepCallback | None,
    ) -> None:
        self.tell = tell
        self.cancel = cancel or threading.Event()
        self.callback = callback

    def trace(self, fleet: Fleet, plan: CanvasPlan, stage_index: int, step: int) -> None:
        """Tell digests of what the ranks took and made since the last time, if asked for."""
        if plan.spec.trace_digests:
            ranks = fleet.all("traced")
            self.say("digests", plan, stage_index, step, facts={"ranks": ranks})

    def say(
        self,
        kind: Kind,
        plan: CanvasPlan | None = None,
        stage_index: int = 0,
        step: int = 0,
        **more: Any,
    ) -> None:
        """Tell one event, with where in the plan it happened."""
        if plan is not None:
            more |= {
                "stage": stage_index + 1,
                "num_stages": len(plan.stages),
                "step": step,
                "num_steps": plan.stages[stage_index].num_steps,
            }
        self.tell(Event(kind=kind, **more))
