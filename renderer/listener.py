"""Whoever started a render: is told what happens, may stop it, and is called after each step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .events import Event, Kind

if TYPE_CHECKING:
    from frieze.cluster.fleet import Fleet

    from .plan import CanvasPlan
    from .render import StepCallback


class Listener:
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

    def trace(self, fleet: Fleet, made: CanvasPlan, stage_index: int, step: int) -> None:
        """Tell digests of what the ranks took and made since the last time, if asked for."""
        if made.spec.trace_digests:
            ranks = fleet.all("traced")
            self.say("digests", made, stage_index, step, facts={"ranks": ranks})

    def say(
        self,
        kind: Kind,
        made: CanvasPlan | None = None,
        stage_index: int = 0,
        step: int = 0,
        **more: Any,
    ) -> None:
        """Tell one event, with where in the plan it happened."""
        if made is not None:
            more |= {
                "stage": stage_index + 1,
                "num_stages": len(made.stages),
                "step": step,
                "num_steps": made.stages[stage_index].num_steps,
            }
        self.tell(Event(kind=kind, **more))
