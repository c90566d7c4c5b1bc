"""The actors of a fleet on Ray: members hold ranks, newcomers get ready to hold one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..fleet import POLL_SECONDS, FleetError, cancellation
from .placement import Bundle, Placement
from .worker_actor import WorkerActor, last_line, version

# How long an actor's process may take to end: Ray gives it 5 s to do so by itself.
KILL_SECONDS = 10.0
MOST_STARTS = 3  # so many in a row that fail are enough, until another rank is lost
HELLO_SECONDS = 10.0  # how long an actor that does nothing may take to answer

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """An actor in its bundle. Fields after `actor` are known once it has answered."""

    bundle: Bundle
    actor: Any
    address: str = ""
    pid: int = 0
    node: str = ""
    hello: Any = None  # where a newcomer will say where it is,
    ready: Any = None  # and, a while later, that it is ready
    since: float = field(default_factory=time.monotonic)

    def ask(self, method: str, *args: Any) -> Any:
        """Starts a call that is answered even while a verb runs."""
        return getattr(self.actor, method).options(concurrency_group="control").remote(*args)

    def answer(self, method: str, *args: Any, seconds: float, who: str) -> Any:
        """A call's answer, polled so that it can be cancelled."""
        import ray

        answer = self.ask(method, *args)
        deadline = time.monotonic() + seconds
        while not ray.wait([answer], timeout=POLL_SECONDS)[0]:
            cancellation.check()
            if time.monotonic() > deadline:
                raise FleetError(f"{who} did not start within {seconds:g} s")
        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            raise FleetError(f"{who} did not start: {last_line(error)}") from error

    def arrived(self, whereabouts: tuple[str, int, str, str]) -> None:
        """Takes note of where it is; raises `FleetError` where other code runs."""
        self.address, self.pid, self.node, theirs = whereabouts
        if theirs != version():
            who = f"pid {self.pid} on {self.address}"
            raise FleetError(
                f"{who} runs frieze {theirs}, this driver {version()}; install one version on all "
                "nodes, or send this one along with frieze submit"
            )


class ActorPool:
    """The actors of a fleet and their placement-group bundles."""

    def __init__(
        self, name: str, reserve: Placement, options: dict[str, Any], preparation: tuple[Any, ...]
    ) -> None:
        """`options` are those of the actors; `preparation` is what `WorkerActor.prepare` takes."""
        import ray

        self.reserve = reserve
        self.members: list[Member] = []
        self.newcomers: list[Member] = []
        self._name, self._num_hired = name, 0
        self.preparation = preparation
        self._refused: set[Bundle] = set()
        self._num_failed = 0  # starts in a row
        self.trouble = ""  # why no more are started
        # An actor's calls run one after another; "control" is answered while a verb runs.
        self._actor = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2}, **options
        )(WorkerActor)

    def hire(self, bundle: Bundle) -> Member:
        """Starts an actor in a bundle."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy

        strategy = Strategy(bundle.group, placement_group_bundle_index=bundle.index)
        name = f"{self._name}-worker{self._num_hired}"
        self._num_hired += 1
        return Member(bundle, self._actor.options(name=name, scheduling_strategy=strategy).remote())

    def fill(self, bundles: Sequence[Bundle], seconds: float) -> None:
        """Starts a member in each bundle and waits until all have said where they are.

        One whose process dies as it starts is followed by another, `MOST_STARTS` in all. Raises
        `FleetError` where they fail too, or one takes more than `seconds`.
        """
        self.members = [self.hire(bundle) for bundle in bundles]
        for rank in range(len(bundles)):
            for start in range(1, MOST_STARTS + 1):
                member = self.members[rank]
                try:
                    answer = member.answer("whereabouts", seconds=seconds, who=f"rank {rank}")
                except FleetError as error:
                    if start == MOST_STARTS or not _has_died(error.__cause__):
                        raise
                    log.warning("%s; another is started", error)
                    self.dismiss([member])
                    self.members[rank] = self.hire(member.bundle)
                else:
                    member.arrived(answer)
                    break

    def recruit(self) -> None:
        """Hires newcomers for empty bundles on nodes that stay; sends off those that failed."""
        nodes, leaving = self.reserve.nodes(), self.reserve.leaving()
        taken = {member.bundle for member in (*self.members, *self.newcomers)} | self._refused
        for bundle, node in nodes.items():
            if bundle not in taken and node not in leaving and not self.trouble:
                newcomer = self.hire(bundle)
                newcomer.hello = newcomer.ask("whereabouts")
                newcomer.ready = newcomer.actor.prepare.remote(*self.preparation)
                self.newcomers.append(newcomer)
        for newcomer in list(self.newcomers):
            if newcomer.node in leaving or not self._is_well(newcomer, nodes):
                self.newcomers.remove(newcomer)
                self.dismiss([newcomer])

    def _is_well(self, newcomer: Member, nodes: Mapping[Bundle, str]) -> bool:
        """Whether a newcomer is on its way, or there."""
        import ray

        try:
            for answer in ray.wait([newcomer.hello], timeout=0)[0]:
                newcomer.arrived(ray.get(answer))
            for answer in ray.wait([newcomer.ready], timeout=0)[0]:
                ray.get(answer)
                self._num_failed = 0
        except (ray.exceptions.RayTaskError, FleetError) as error:
            self._refused.add(newcomer.bundle)
            self._failed(error)
            return False
        except ray.exceptions.RayError as error:
            if newcomer.bundle in nodes:  # it did not die with its node
                self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        """Tells of a start that failed, and ends them all if there were too many in a row."""
        log.warning("a new worker could not join: %s", last_line(error))
        self._num_failed += 1
        if self._num_failed >= MOST_STARTS and not self.trouble:
            self.trouble = f"{self._num_failed} starts in a row failed: {last_line(error)}"
            log.warning("no more workers are started; %s", self.trouble)

    def ready(self) -> list[Member]:
        """Newcomers that may become ranks."""
        import ray

        return [n for n in self.newcomers if n.pid and ray.wait([n.ready], timeout=0)[0]]

    def refill(self, wanted: int, patience: float, limit: float) -> None:
        """Waits until enough are there, or nobody more is to be expected.

        That is so after `MOST_STARTS` in a row that failed, and `trouble` says why.
        A share may take `patience` seconds to be placed and its worker to say hello; one that
        did may take `limit` seconds to get ready.
        """
        began = time.monotonic()
        self._num_failed, self.trouble = 0, ""
        while True:
            cancellation.check()
            self.recruit()
            now, ready = time.monotonic(), self.ready()
            is_early = now - began <= patience
            coming = [n for n in self.newcomers if now - n.since < limit and (n.pid or is_early)]
            is_over = (self.trouble or not is_early) and len(coming) <= len(ready)
            if is_over or len(self.members) + len(ready) >= wanted:
                return
            time.sleep(POLL_SECONDS / 4)

    def mute(self) -> set[Member]:
        """Members that do not answer, whatever their verbs do."""
        import ray

        asked = {member.ask("whereabouts"): member for member in self.members}
        answers, _ = ray.wait(list(asked), num_returns=len(asked), timeout=HELLO_SECONDS)
        return set(self.members) - {asked[answer] for answer in answers if _is_value(answer)}

    def part_with(self, lost: set[Member]) -> None:
        """Kills members; the others stay."""
        gone = [member for member in self.members if member in lost]
        self.members = [member for member in self.members if member not in lost]
        self.dismiss(gone)

    def dismiss(self, members: list[Member]) -> None:
        """Kills actors, and returns when their processes have ended as far as can be known."""
        import ray

        for member in members:
            ray.kill(member.actor)
        here = ray.util.get_node_ip_address()
        pids = {member.pid for member in members if member.address == here and member.pid}
        deadline = time.monotonic() + KILL_SECONDS
        while any(map(_is_running, pids)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)


def _has_died(error: BaseException | None) -> bool:
    """Whether a process is gone that failed at nothing of its own."""
    import ray

    return isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed


def _is_value(answer: Any) -> bool:
    import ray

    try:
        ray.get(answer)
    except ray.exceptions.RayError:
        return False
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
