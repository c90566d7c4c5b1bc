"""Workers that stay: they keep their weights from item to item, prompts are encoded before.

The workers' memory is taken while they wait, so that all prompts of a phase go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from frieze.cluster.fleet import Fleet, FleetError, FunctionWorker, LocalFleet

from ..driver.initial_pictures import first_frame
from ..driver.workers import Prompts, Workers, launch, on_actors, run_isolated, shard_of
from ..errors import FriezeError, PlanError
from ..outputs import targets as outputs
from ..planning.canvas_plan import CanvasPlan
from ..worker import model_cache, prompt_encoding
from ..worker.shard import Shard
from .scheduling import ScheduledItem

if TYPE_CHECKING:
    import numpy as np


class NoWorkersError(PlanError):
    """The workers of a lane cannot be had, at least not now."""


class WarmWorkers(Workers):
    """The workers of one lane; `ray` says whether they are actors, `beside` counts the others'."""

    def __init__(self, prompts: EncodedPrompts, *, ray: bool, beside: int) -> None:
        self._prompts = prompts
        self._ray = ray
        self._beside = beside
        self._fleet: Fleet | None = None

    def session(self, plan: CanvasPlan) -> AbstractContextManager[None]:
        """The batch's own, which is open."""
        return nullcontext()

    def check_room(self, plan: CanvasPlan) -> None:
        """Nothing to do: who is there or was asked for is the batch's to know."""

    def prompts(self, plan: CanvasPlan, image: np.ndarray | None) -> Prompts:
        """What was encoded before; raises what that was refused with."""
        return self._prompts.of(plan)

    @contextmanager
    def fleet(self, plan: CanvasPlan, targets: outputs.Targets) -> Iterator[Fleet]:
        """The fleet of the last render, if it is still able; `NoWorkersError` where none starts."""
        yield self._taken(plan, targets) or self._launched(plan, targets)

    def run_isolated(self, plan: CanvasPlan, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function before weights are loaded, where its memory is free again afterwards.

        On Ray in the worker of this lane, if it has one: another process would spend as long on
        its start and its imports as many small pictures take.
        """
        if not self._ray or plan.spec.workers > 1:
            return run_isolated(plan, function, *arguments, ray=self._ray)
        self.close()
        self._fleet = on_actors(FunctionWorker, plan.spec, beside=self._beside)
        try:
            return self._fleet.one("run_isolated", LocalFleet.run_isolated, function, *arguments)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets the workers go."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()

    def _taken(self, plan: CanvasPlan, targets: outputs.Targets) -> Fleet | None:
        fleet = self._fleet
        if fleet is None or fleet.has_ended:
            return None
        try:
            fleet.replace_workers(Shard, *shard_of(plan, targets))
        except FleetError:  # a worker was lost while it waited
            return None
        return fleet

    def _launched(self, plan: CanvasPlan, targets: outputs.Targets) -> Fleet:
        self.close()
        try:
            self._fleet = launch(plan, targets, ray=self._ray, beside=self._beside)
        except FleetError as error:
            raise NoWorkersError(str(error)) from error
        return self._fleet


class EncodedPrompts:
    """Encoded prompts by what decides them; those of seeds and sizes are the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Prompts | FriezeError] = {}

    def encode(self, jobs: Sequence[ScheduledItem], workers: WarmWorkers) -> None:
        """Encode the prompts of these jobs in one go, on workers that have loaded nothing yet.

        Those of other jobs are forgotten.
        """
        missing = {prompt_key(job.plan): job.plan for job in jobs}
        plans = sorted(missing.values(), key=model_cache.weights)
        asked = [(each, _image(each)) for each in plans]
        if asked:
            found = workers.run_isolated(asked[0][0], prompt_encoding.encode_many, asked)
            self._found = dict(zip(map(prompt_key, plans), found, strict=True))

    def has(self, job: ScheduledItem) -> bool:
        """Whether a job's prompts were encoded, or refused."""
        return prompt_key(job.plan) in self._found

    def of(self, plan: CanvasPlan) -> Prompts:
        """The prompts of a plan; raises what they were refused with."""
        found = self._found[prompt_key(plan)]
        if isinstance(found, FriezeError):
            raise found
        return found


def prompt_key(plan: CanvasPlan) -> tuple[object, ...]:
    """All that decides what the text encoders say."""
    spec, image = plan.spec, plan.sources.get("image")
    return (
        model_cache.weights(plan),
        plan.prompts,
        spec.negative_prompt,
        spec.max_sequence_length,
        plan.num_halves,
        image and (image.digest, plan.size(-1)),
    )


def _image(plan: CanvasPlan) -> np.ndarray | None:
    return first_frame(plan, None) if "image" in plan.sources else None
