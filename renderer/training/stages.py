"""The stages of a decoder's training, one after the other, each from the average of the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from frieze.cluster.comm import Comm

from ..autoencoders.infgen_network import InfGenDecoder
from ..errors import SpecError
from .adversarial import AdversarialPlan, AdversarialTraining
from .distillation import DistillationPlan, DistillationTraining
from .infgen_training import FlowPlan, FlowTraining, Pictures
from .perceptual import PerceptualDistance
from .recipe import Recipe, StageName

ENDLESS = 10**9  # steps of a stage that ends by the clock


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
class Objective:
    """What a stage learns by, its weight among the stages' minutes or steps, and its rate's.

    `rate` is a part of the recipe's.
    """

    training: Callable[[InfGenDecoder, Any], Stage]
    plan: type[FlowPlan]
    weight: float
    rate: float = 1.0


OBJECTIVES = {
    "flow": Objective(FlowTraining, FlowPlan, 4.0),
    "distillation": Objective(DistillationTraining, DistillationPlan, 1.0, 0.25),
    "adversarial": Objective(AdversarialTraining, AdversarialPlan, 6.0, 0.15),
}


@dataclass(frozen=True)
class StageKind:
    """A stage of a recipe by its name, and its share of all."""

    name: StageName
    recipe: Recipe

    @property
    def share(self) -> float:
        """Of the minutes or steps, in (0, 1]."""
        weights = {name: OBJECTIVES[name].weight for name in self.recipe.stages}
        return weights[self.name] / sum(weights.values())

    @property
    def steps(self) -> int | None:
        """Its steps; None where it ends by the clock."""
        steps = self.recipe.steps
        return None if steps is None else max(1, round(self.share * steps))

    @property
    def seconds(self) -> float | None:
        """Its seconds; None where it ends by its steps."""
        minutes = self.recipe.minutes
        return None if minutes is None else self.share * minutes * 60

    def training(self, network: InfGenDecoder) -> Stage:
        """The stage at work on a network, from its beginning."""
        return OBJECTIVES[self.name].training(network, self.plan())

    def plan(self) -> FlowPlan:
        """How it is trained; raises `SpecError` for a recipe that it cannot follow."""
        objective, recipe = OBJECTIVES[self.name], self.recipe
        few: dict[str, Any] = (
            {} if self.steps is None else {"warm_up": max(1, min(100, self.steps // 10))}
        )
        if objective.plan is AdversarialPlan and self.steps is not None:
            few["alone"] = min(AdversarialPlan.alone, self.steps // 3)
        try:
            return objective.plan(
                steps=self.steps or ENDLESS,
                batch=recipe.batch,
                crop=recipe.crop,
                scales=(1.0, recipe.scale),
                rate=recipe.rate * objective.rate,
                autocast=recipe.dtype == "bfloat16",
                seed=recipe.seed * len(OBJECTIVES) + list(OBJECTIVES).index(self.name),
                **few,
            )
        except ValueError as error:
            raise SpecError(f"stage {self.name!r}: {error}") from None


def stages(recipe: Recipe) -> list[StageKind]:
    """Those of a recipe, in their order."""
    return [StageKind(name, recipe) for name in recipe.stages]


def check(recipe: Recipe) -> None:
    """Raise `SpecError` or `ModelError` for stages that cannot be had."""
    for stage in stages(recipe):
        stage.plan()
        if stage.name == "adversarial":
            PerceptualDistance()
