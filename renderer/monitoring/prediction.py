"""The seconds that a render was said to take: worked out while it starts, and held to what it took.

Only where the rates of its devices are known. Start-up and exports are in neither figure.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import FriezeError
from ..planning.devices import uses_ray
from .durations import span

if TYPE_CHECKING:
    from ..planning.canvas_plan import CanvasPlan

RECENT = 8  # steps whose median counts, so that one stall does not
QUICK = 60.0  # seconds of a render that counting, which takes about one, would disturb
MOST_WAIT = 20.0  # seconds that the end of a render waits for what is not worked out yet


@dataclass(frozen=True)
class Accuracy:
    """Seconds from the first step to the last block, and those that were predicted for them."""

    predicted: float
    took: float

    @property
    def off(self) -> float:
        """How much longer it took, as a part of what was predicted; negative if it was quicker."""
        return self.took / self.predicted - 1.0

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {"accuracy": {**asdict(self), "off": self.off}}

    def __str__(self) -> str:
        how = "more" if self.off > 0 else "less"
        return (
            f"steps and decoding took {span(self.took)}, {abs(self.off):.0%} {how} than the "
            f"{span(self.predicted)} that were predicted"
        )


def of_facts(facts: Mapping[str, Any]) -> Accuracy | None:
    """What an event, or its line in a log, tells of it; None where it tells nothing."""
    match facts.get("accuracy"):
        case {"predicted": float(predicted) | int(predicted), "took": float(took) | int(took)}:
            return Accuracy(predicted, took) if predicted > 0 and took > 0 else None
    return None


class PredictionThread:
    """Predicts a plan's seconds beside its start; `tell` hears of them from there.

    A quick render in this very process would be slower for it: it is predicted when it is drawn.
    """

    def __init__(
        self, plan: CanvasPlan, work: float, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """`work` are the plan's FLOPs, roughly."""
        self._plan, self._tell = plan, tell
        self._thread: threading.Thread | None = None
        self._is_late = False
        with contextlib.suppress(FriezeError):  # figures that are damaged stop no render
            kind = plan.device_kind
            if kind is None or (rates := kind.rates(plan.spec.dtype)) is None:
                return
            self._is_late = not uses_ray(plan.spec) and work / rates.matmul < QUICK
            if not self._is_late:
                self._thread = threading.Thread(target=self._predict, daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """All is drawn: it tells now, if it has not."""
        if self._thread is not None:
            self._thread.join(MOST_WAIT)
        elif self._is_late:
            self._predict()

    def _predict(self) -> None:
        with contextlib.suppress(FriezeError):
            if (found := self._plan.predicted) is not None:
                self._tell(found.facts())


class Remaining:
    """What is left of a prediction from a step on, as quick as the last steps were beside it."""

    def __init__(self, predicted: Mapping[str, Any]) -> None:
        self._stages = [(each["begin"], each["steps"]) for each in predicted["stages"]]
        self._decode: float = predicted["decode"]
        self._ratios: deque[float] = deque(maxlen=RECENT)

    def measure(self, stage: int, step: int, seconds: float) -> None:
        """A step, both from 0, took so long."""
        if (told := self._stages[stage][1][step]) > 0:
            self._ratios.append(seconds / told)

    @property
    def ratio(self) -> float:
        """Of seconds to those predicted, until now."""
        return statistics.median(self._ratios) if self._ratios else 1.0

    def predicted(self, stage: int, step: int, share: float = 1.0) -> float:
        """Seconds after so many steps of a stage; `share` is of decoding that is left."""
        rest = sum(self._stages[stage][1][step:])
        rest += sum(begin + sum(steps) for begin, steps in self._stages[stage + 1 :])
        return rest + share * self._decode
