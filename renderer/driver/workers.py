"""Which fleet draws a plan: one rank here, threads of this process, or Ray actors.

A driver asks `Workers` for what it needs; those that outlive a render are in
batches/warm_workers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, SoloFleet
from frieze.cluster.ray import placement
from frieze.cluster.ray import session as ray_session
from frieze.cluster.ray.actor_fleet import RayFleet

from ..errors import PlanError
from ..files.location import Location, carried
from ..journal.journal import Journal
from ..models.device import device_type
from ..models.family import Conditioning
from ..outputs import targets as outputs
from ..planning import devices
from ..planning.canvas_plan import CanvasPlan
from ..planning.plan import plan
from ..spec.render_spec import RenderSpec
from ..store import numerics
from ..worker.prompt_encoding import encode_prompts
from ..worker.shard import Shard
from .caller import Caller

if TYPE_CHECKING:
    import numpy as np

Prompts = Mapping[str, Conditioning]


class Workers:
    """Who works for a render: this one is hired for each render anew, and let go after it."""

    def session(self, plan: CanvasPlan) -> AbstractContextManager[None]:
        """One Ray for all that a render starts; `PlanError` where it cannot be had."""
        return session(plan)

    def check_room(self, plan: CanvasPlan) -> None:
        """Raise `PlanError` that says what is missing where the workers cannot be had."""
        if devices.uses_ray(plan.spec):
            check_room(plan)

    def prompts(self, plan: CanvasPlan, image: np.ndarray | None) -> Prompts:
        """The encoded prompts of a plan, which animates `image` [H, W, 3], if any."""
        found: Prompts = run_isolated(plan, encode_prompts, plan, image)
        return found

    def fleet(self, plan: CanvasPlan, targets: outputs.Targets) -> AbstractContextManager[Fleet]:
        """Workers whose shards were built for this plan; raises `PlanError`."""
        return launched(plan, targets)


@contextmanager
def session(plan: CanvasPlan) -> Iterator[None]:
    """One Ray for all that a render starts; `PlanError` where it cannot be had."""
    spec = plan.spec
    with ExitStack() as stack:
        if devices.uses_ray(spec):
            try:
                stack.enter_context(ray_session.session(spec.most_workers, spec.address))
            except FleetError as error:
                raise PlanError(str(error)) from error
        yield


def check_room(plan: CanvasPlan) -> None:
    """Raise `PlanError` unless Ray has room for the workers: no prompt is encoded in vain."""
    spec = plan.spec
    try:
        placement.check_room(spec.workers, num_cpus=1, num_gpus=gpus(spec), wait=spec.wait)
    except FleetError as error:
        raise PlanError(str(error)) from error


def launched(plan: CanvasPlan, targets: outputs.Targets) -> Fleet:
    """`launch`; workers that cannot be had are a plan that cannot be drawn (`PlanError`)."""
    try:
        return launch(plan, targets)
    except FleetError as error:
        raise PlanError(str(error)) from error


def shard_of(plan: CanvasPlan, targets: outputs.Targets) -> tuple[CanvasPlan, Location, str | None]:
    """What a render's shards are built with."""
    return plan, carried(targets.store), None if targets.part is None else str(targets.part)


def launch(
    plan: CanvasPlan, targets: outputs.Targets, *, ray: bool | None = None, beside: int = 0
) -> Fleet:
    """The fleet that the spec asks for; `ray` decides what `uses_ray` would.

    `beside` is the number of workers in fleets that are to run beside this one.
    """
    spec, arguments = plan.spec, shard_of(plan, targets)
    if not (devices.uses_ray(spec) if ray is None else ray):
        if spec.workers == 1:
            return SoloFleet.launch(Shard, *arguments)
        return LocalFleet.launch(
            Shard, spec.workers, *arguments, timeout=spec.timeout, park=spec.park
        )
    return on_actors(Shard, spec, *arguments, beside=beside)


def on_actors(worker: type, spec: RenderSpec, *arguments: Any, beside: int) -> RayFleet:
    """A fleet of Ray actors as the spec asks for, each with a worker of that class."""
    return RayFleet.launch(
        worker,
        spec.workers,
        *arguments,
        most=spec.most_workers,
        unit=spec.guidance_ranks * spec.ulysses,
        prepare="load",
        address=spec.address,
        num_cpus=1,
        num_gpus=gpus(spec),
        timeout=spec.timeout,
        wait=spec.wait,
        beside=beside,
    )


def run_isolated(
    plan: CanvasPlan, function: Callable[..., Any], *arguments: Any, ray: bool | None = None
) -> Any:
    """Call a function where its memory is free again before the fleet starts."""
    spec = plan.spec
    if not (devices.uses_ray(spec) if ray is None else ray):
        return LocalFleet.run_isolated(function, *arguments)
    return RayFleet.run_isolated(
        function,
        *arguments,
        address=spec.address,
        num_cpus=1,
        num_gpus=gpus(spec),
        timeout=spec.timeout,
        wait=spec.wait,
    )


def replanned(canvas_plan: CanvasPlan, size: int) -> CanvasPlan:
    """The same picture on another number of workers, which share as much as that allows."""
    spec = canvas_plan.spec
    halves = math.gcd(spec.guidance_ranks, size)
    mesh = {"guidance_ranks": halves, "ulysses": math.gcd(spec.ulysses, size // halves)}
    changed = spec.model_copy(update={"workers": size, **mesh})
    return plan(
        changed,
        block=canvas_plan.block[0],
        sources=canvas_plan.sources,
        detected=canvas_plan.detected,
    )


def gpus(spec: RenderSpec) -> int:
    """GPUs for each worker."""
    if spec.device == "auto" and devices.on_cluster(spec):  # the driver's node may have none
        return 1 if ray_session.offers("GPU") else 0
    return 1 if device_type(spec.device) == "cuda" else 0


def note_numerics(fleet: Fleet, journal: Journal, caller: Caller) -> None:
    """Note in the journal what decides the ranks' bytes, and tell where it is not what it was."""
    if text := numerics.record(journal, fleet.all("numerics")):
        caller.say("note", message=text)
