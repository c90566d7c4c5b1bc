"""The stages of a decoder's training, one after the other, each from the average of the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frieze.cluster.comm import Comm

from ..autoencoders.infgen_network import InfGenDecoder
from .infgen_training import FlowPlan, FlowTraining, Pictures
from .recipe import Recipe

ENDLESS = 10**9  # steps of a stage that ends by the clock
WARM_UP = 100


class Stage(Protocol):
    """One objective at work; see `FlowTraining`, which is the first."""

    network: InfGenDecoder
    average: InfGenDecoder
    comm: Comm
    progress: float | None
    step_index: int

    def step(self, pictures: Pictures) -> float:
        """Learn from one batch; its mean loss."""

    def save(self, folder: Path) -> None:
        """Write all that going on needs."""

    def restore(self, folder: Path) -> None:
        """Go on from there, if anything is."""


@dataclass(frozen=True)
class StageKind:
    """A stage by name, its share of the minutes or steps, and what makes it of a network."""

    name: str
    share: float
    training: Callable[[InfGenDecoder, Recipe], Stage]

    def steps(self, recipe: Recipe) -> int | None:
        """Its steps; None where it ends by the clock."""
        return None if recipe.steps is None else max(1, round(self.share * recipe.steps))

    def seconds(self, recipe: Recipe) -> float | None:
        """Its seconds; None where it ends by its steps."""
        return None if recipe.minutes is None else self.share * recipe.minutes * 60


def flow(network: InfGenDecoder, recipe: Recipe) -> Stage:
    """Rectified flow from noise to residuals."""
    (kind,) = (each for each in STAGES if each.name == "flow")
    steps = kind.steps(recipe)
    plan = FlowPlan(
        steps=steps or ENDLESS,
        batch=recipe.batch,
        crop=recipe.crop,
        scales=(1.0, recipe.scale),
        rate=recipe.rate,
        warm_up=WARM_UP if steps is None else max(1, min(WARM_UP, steps // 10)),
        autocast=recipe.dtype == "bfloat16",
        seed=recipe.seed,
    )
    return FlowTraining(network, plan)


STAGES = (StageKind("flow", 1.0, flow),)
