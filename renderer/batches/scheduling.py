"""How a batch shares its workers out: which item on how many, in which order, what beside what.

The rule: an item is drawn by one worker, beside others, unless a device cannot hold it or it has
`LARGE` pixels or more; then it is cut over as many workers as it can be. An item's own `workers`
wins. Larger priorities come first; items drawn alike and with the same weights follow each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import FriezeError, PlanError
from ..planning.canvas_plan import CanvasPlan
from ..planning.plan import plan
from ..worker import model_cache
from .items import Item

# 2048 x 2048: attention over as many tokens takes most of a step, and every worker shortens it.
# Of a clip the latent frames count, for attention is over all of them.
LARGE = 2048 * 2048
# Items of one phase: their encoded prompts, a few MB each, wait in the driver's memory.
MOST_TOGETHER = 256


@dataclass(frozen=True)
class ScheduledItem:
    """An item and its plan, on as many workers as the plan says; `number` is its place."""

    number: int
    item: Item
    plan: CanvasPlan

    @property
    def width(self) -> int:
        """Ranks that draw it."""
        return self.plan.spec.workers


@dataclass(frozen=True)
class Phase:
    """Jobs for `num_lanes` fleets of `width` workers side by side, in the order of their start."""

    width: int
    num_lanes: int
    jobs: tuple[ScheduledItem, ...]


def pack(item: Item, number: int, num_workers: int) -> ScheduledItem:
    """The item's plan on the number of workers that suits it; raises what `plan` raises."""
    if item.workers is not None:
        if item.workers > num_workers:
            raise PlanError(
                f"workers {item.workers} are more than the {num_workers} of the batch; "
                "use fewer, or a batch with more"
            )
        return ScheduledItem(number, item, _plan(item, item.workers))
    refused: FriezeError | None = None
    try:
        alone = _plan(item, 1)
        if num_workers == 1 or _pixels(alone) < LARGE:
            return ScheduledItem(number, item, alone)
    except PlanError as error:
        refused = error
    for width in range(num_workers, 1, -1):
        try:
            return ScheduledItem(number, item, _plan(item, width))
        except PlanError as error:
            refused = refused or error
    if isinstance(refused, PlanError):
        raise refused
    return ScheduledItem(number, item, alone)


def phases(jobs: Iterable[ScheduledItem], num_workers: int, *, one_device: bool) -> list[Phase]:
    """Jobs in their order, cut where the number of workers of each changes.

    On `one_device` items follow each other, for it is busy with one, and weights are what a
    change costs; elsewhere a change of workers costs them as well.
    """
    listed = list(jobs)
    first: dict[tuple[str, ...], int] = {}
    for job in listed:
        first.setdefault(model_cache.weights(job.plan), job.number)

    def place(job: ScheduledItem) -> tuple[int, ...]:
        weights = first[model_cache.weights(job.plan)]
        alike = (weights, job.width) if one_device else (job.width, weights)
        return (-job.item.priority, *alike, job.number)

    ordered = sorted(listed, key=place)
    return [
        Phase(width, 1 if one_device else min(num_workers // width, len(together)), together)
        for width, run in itertools.groupby(ordered, key=lambda job: job.width)
        for together in _slices(tuple(run))
    ]


def _slices(jobs: Sequence[ScheduledItem]) -> Iterable[tuple[ScheduledItem, ...]]:
    return (
        tuple(jobs[start : start + MOST_TOGETHER]) for start in range(0, len(jobs), MOST_TOGETHER)
    )


def _plan(item: Item, width: int) -> CanvasPlan:
    return plan(item.spec.model_copy(update={"workers": width}))


def _pixels(plan: CanvasPlan) -> int:
    return plan.spec.height * plan.spec.width * plan.stages[-1].canvas.frames
