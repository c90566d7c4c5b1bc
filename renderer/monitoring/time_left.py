"""How long a render, or a batch, still takes: from its plan, and from what was done until now.

A step is weighed by what it computes: 24 L d^2 N + 4 L d N^2 floating-point operations for N tokens
and L blocks of width d (a transformer's matrix products and its attention's: Kaplan et al. 2020,
arXiv 2001.08361, sec. 2.1), for each prompt. Decoding is weighed as by an autoencoder of latent
diffusion (arXiv 2112.10752) with C channels at full size, some 300 C^2 a pixel, and encoding half
of that. Seconds are those of the last steps, in proportion: for stages to come, and for decoding
until blocks come. Where two stages were measured, what a step takes whatever it computes is seen.
What decoding needs before its first blocks does not come again, so that it is not in the pace of
the rest. Where the rates of the devices are known, all this is not weighed but predicted, step by
step, and is in proportion to how the last steps were beside that. Start-up, and exports that end
after the last block, are not counted.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..events import Event
from .durations import span
from .prediction import Accuracy, Remaining

if TYPE_CHECKING:
    from ..planning.canvas_plan import CanvasPlan


RECENT = 8  # steps whose median counts, so that one stall does not


PER_PIXEL = 300.0  # operations of a decoder for each pixel and squared channel


ENCODING = 0.5  # of decoding as many pixels


Sureness = Literal["", "about", "at least"]


@dataclass(frozen=True)
class Left:
    """Seconds: by what was measured of such work, "about", in proportion to other work, or
    "at least", where part of the work cannot be weighed."""

    seconds: float
    sureness: Sureness = ""

    def facts(self) -> dict[str, Any]:
        """The same beside an event's facts."""
        told = {"left_is": self.sureness} if self.sureness else {}
        return {"left": round(self.seconds, 3), **told}

    def __str__(self) -> str:
        return f"{self.sureness} {span(self.seconds)} left".lstrip()


def of_facts(facts: Mapping[str, Any]) -> Left | None:
    """The time left that an event, or its line in a log, tells; None if it tells none."""
    if facts.get("left") is None:
        return None
    return Left(facts["left"], facts.get("left_is") or "")


def stages(plan: CanvasPlan) -> list[dict[str, Any]]:
    """Size in pixels, steps, and operations of each stage: of one step, and of its beginning."""
    cost, patch = plan.facts.cost, plan.facts.latent.patch
    found: list[dict[str, Any]] = []
    for index, stage in enumerate(plan.stages):
        height, width = plan.size(index)
        canvas = stage.canvas
        tokens = canvas.frames * (canvas.height // patch) * (canvas.width // patch)
        each = 24.0 * cost.hidden**2 * tokens + 4.0 * cost.hidden * tokens**2
        begin = 0.0
        if index and index - 1 in plan.painted:
            begin = _pixels(plan, *plan.size(index - 1)) + ENCODING * _pixels(plan, height, width)
        often = sum(stage.draws) / max(1, stage.num_steps)
        step = often * stage.guidance.num_halves * cost.num_layers * each
        about = {"cost": step, "begin_cost": begin}
        found.append({"size": [width, height], "steps": stage.num_steps, **about})
    return found


def decoding_cost(plan: CanvasPlan) -> float:
    """Operations of decoding the picture or clip."""
    return _pixels(plan, plan.spec.height, plan.spec.width)


def whole_cost(plan: CanvasPlan) -> float:
    """Operations of a whole render."""
    steps = (stage["begin_cost"] + stage["steps"] * stage["cost"] for stage in stages(plan))
    return sum(steps) + decoding_cost(plan)


def _pixels(plan: CanvasPlan, height: int, width: int) -> float:
    channels = plan.facts.cost.decoder_channels
    return PER_PIXEL * channels**2 * height * width * plan.spec.num_frames


class TimeLeft:
    """The time left of one render; hears all its events, in their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin(())

    def _begin(self, stages: Sequence[Mapping[str, Any]], decoding: float = 0.0) -> None:
        """Forget all but the plan: what was done before is no part of what is left."""
        self._stages, self._decoding = stages, decoding
        self._at = (0, 0)  # the stage, from 0, and its steps that are done
        self._steps: deque[float] = deque(maxlen=RECENT)  # seconds of this stage's
        self._measured: dict[float, float] = {}  # seconds of steps by their operations
        self._newest = 0.0  # operations of the steps that were measured last; 0: none were
        self._blocks: _Blocks | None = None  # once decoding has begun
        self._remaining: Remaining | None = None  # once the seconds are predicted
        self._first: tuple[int, int, float] | None = None  # where this run began its work, and when
        self._last = 0.0  # when its last block came

    def __call__(self, event: Event) -> Left | None:
        """The time left after an event; None where it tells nothing new of that."""
        if event.kind == "plan":
            self._begin(event.facts.get("stages", ()), event.facts.get("decoding_cost", 0.0))
        elif event.kind in ("stage", "step", "recovered", "resized"):
            self._hear_step(event)
        elif event.kind in ("decode", "block"):
            self._last = self._clock()
            if self._blocks is None or event.kind == "decode":
                self._blocks = _Blocks(event, self._clock())
            else:
                self._blocks.count(event, self._clock())
        else:
            return None
        return self.left()

    def left(self) -> Left | None:
        """As things stand; None before anything was measured."""
        if self._blocks is not None and (measured := self._blocks.left()) is not None:
            return measured
        share = 1.0 if self._blocks is None else self._blocks.share
        if self._remaining is not None:
            left = self._remaining.predicted(*self._at, share)
            return Left(self._remaining.ratio * left, "about")
        if not self._newest:
            return None
        steps = self._steps_left() if self._blocks is None else 0.0
        seconds = steps + share * self._decoding * self._rate
        return Left(seconds, "about" if self._decoding else "at least")

    def predict(self, predicted: Mapping[str, Any]) -> None:
        """From now on it follows this prediction, as `Prediction.facts` tells it."""
        self._remaining = Remaining(predicted)

    def accuracy(self) -> Accuracy | None:
        """How the prediction was, once all is drawn; None without one, or a step to begin with."""
        if self._remaining is None or self._first is None or not self._last:
            return None
        *at, began = self._first
        predicted, took = self._remaining.predicted(*at), self._last - began
        return Accuracy(predicted, took) if predicted > 0 and took > 0 else None

    def _hear_step(self, event: Event) -> None:
        at, before = (event.stage - 1, event.step), self._at
        if not 0 <= at[0] < len(self._stages):
            return
        self._at, self._blocks = at, None
        if self._first is None:
            seconds = event.seconds if event.kind == "step" else 0.0
            self._first = (at[0], at[1] - (event.kind == "step"), self._clock() - seconds)
        if at[0] != before[0] or event.kind == "resized":
            self._steps.clear()
        if event.kind == "resized" and self._remaining is not None:
            self._remaining = None  # it was of as many workers as there were
        if event.kind == "step":
            self._steps.append(event.seconds + event.facts.get("driver", 0.0))
            if self._remaining is not None:
                self._remaining.measure(at[0], at[1] - 1, self._steps[-1])
            self._newest = self._cost(at[0])
            self._measured[self._newest] = statistics.median(self._steps)
        elif event.kind == "resized":  # what other workers took is no measure beside new steps
            self._measured = {k: v for k, v in self._measured.items() if k == self._newest}

    def _cost(self, stage: int) -> float:
        """Operations of a step, in proportion to pixels where the plan does not say."""
        told = self._stages[stage]
        return float(told.get("cost") or told["size"][0] * told["size"][1])

    @property
    def _rate(self) -> float:
        """Seconds of an operation in the steps that were measured last."""
        return self._measured[self._newest] / self._newest

    def _step_seconds(self, stage: int) -> float:
        """Of one step of a stage: on the line through two stages, or in proportion to one."""
        least, cost = min(self._measured), self._cost(stage)
        seconds, slope = self._measured[self._newest], self._rate
        if least < self._newest:
            found = (seconds - self._measured[least]) / (self._newest - least)
            slope = min(slope, found) if found > 0 else slope
        return seconds + slope * (cost - self._newest)

    def _steps_left(self) -> float:
        """Seconds of all steps to come, and of what lies between stages."""
        stage, step = self._at
        total = (self._stages[stage]["steps"] - step) * self._step_seconds(stage)
        for number in range(stage + 1, len(self._stages)):
            told = self._stages[number]
            total += told["steps"] * self._step_seconds(number)
            total += told.get("begin_cost", 0.0) * self._rate
        return total


class _Blocks:
    """Blocks as they come. The first of each rank waited for all that they have in common."""

    def __init__(self, event: Event, now: float) -> None:
        self._done, self._total = event.blocks, event.num_blocks
        self._ranks: set[int] = set()
        self._first = now  # when the first ones came
        self._counted, self._seconds = 0, 0.0
        if event.kind == "block":
            self._ranks.add(event.facts.get("rank", 0))

    def count(self, event: Event, now: float) -> None:
        new, rank = event.blocks - self._done, event.facts.get("rank", 0)
        self._done, self._total = event.blocks, event.num_blocks
        if not self._ranks:
            self._first = now
        elif rank in self._ranks:
            self._counted, self._seconds = self._counted + new, now - self._first
        self._ranks.add(rank)

    @property
    def share(self) -> float:
        """Of decoding that is left."""
        return (self._total - self._done) / self._total if self._total else 0.0

    def left(self) -> Left | None:
        """By the pace of these blocks; None before there is any."""
        if self._done >= self._total:
            return Left(0.0)
        if not self._counted:
            return None
        seconds = self._seconds / self._counted * (self._total - self._done)
        return Left(seconds, "" if self._counted >= len(self._ranks) else "about")
