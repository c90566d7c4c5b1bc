"""Ranks as Ray actors in placement groups: with the other files of this folder, the door to Ray.

Ray starts, places and watches the processes; tensors travel between them by `comm.processes`.
Nothing here stops a Ray that this fleet did not start.
"""

from __future__ import annotations

import atexit
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self

from ..fleet import (
    POLL_SECONDS,
    Bounds,
    Call,
    Fleet,
    FleetError,
    FunctionWorker,
    RankLocation,
    Report,
    T,
    WorkerLostError,
    next_size,
)
from .actor_pool import ActorPool, Member
from .heartbeat import Heartbeat
from .placement import Placement, share_of
from .session import connect, disconnect, is_private, threads_of
from .worker_actor import next_report

# The least that a process may take to start: it imports torch; and Ray learns after a minute that
# one has died before it registered, and starts another.
START_SECONDS = 180.0
LOOPBACK = "127.0.0.1"
BRIEF_SECONDS = 5.0  # how long a share may take to be placed anew where enough ranks are left
LOOK_SECONDS = 1.0  # between looks at the cluster

log = logging.getLogger(__name__)


class RayFleet(Fleet):
    """Ranks as actors, one per share of the cluster; ranks of one node are neighbours."""

    @classmethod
    def launch(
        cls,
        worker: type,
        size: int,
        *args: Any,
        most: int | None = None,
        unit: int = 1,
        prepare: str | None = None,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        timeout: float = 600.0,
        wait: float = 60.0,
        beside: int = 0,
    ) -> Self:
        """Places `size` workers, each with `num_cpus` and `num_gpus`, and builds their group.

        Up to `most`, a multiple of `unit`, are taken if there is room, and asked of the cluster
        if there is not; `size` then says how many there are. Those that come later run the verb
        `prepare` before they join. The Ray used is the one this process is connected to, else
        `address`, else RAY_ADDRESS, else a private one started for this fleet. Raises `FleetError`
        when the workers cannot be placed and started within `wait` seconds each. `timeout`
        (seconds) is how long a rank may stay silent in a verb or wait for another in a collective;
        one whose process does not answer at all is lost after 30 s at most.
        On a private Ray the host's threads are shared out evenly, to `beside` workers of other
        fleets too.
        """
        fleet = cls(worker, size, timeout)
        fleet._beside = beside
        fleet._bounds = Bounds(size, most or size, unit)
        fleet._preparation = (worker, args, prepare)
        fleet._staff(worker, args, address, num_cpus, num_gpus, wait)
        return fleet

    @classmethod
    def run_isolated(
        cls,
        function: Callable[..., T],
        *args: Any,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        timeout: float = 600.0,
        wait: float = 60.0,
    ) -> T:
        """Runs a function in an actor of its own, which has ended when its result is here.

        Errors are those of a verb, and of `launch`, whose Ray this uses. A result should be on the
        CPU. A private Ray is started for this call alone, unless a `session` keeps one.
        """
        fleet = cls(FunctionWorker, 1, timeout)
        fleet._call_it(getattr(function, "__name__", "function"))
        fleet._staff(FunctionWorker, (), address, num_cpus, num_gpus, wait)
        with fleet:
            result: T = fleet.one("run_isolated", function, *args)
        return result

    def __init__(self, worker: type, size: int, timeout: float) -> None:
        super().__init__(worker, size, timeout)
        self._call_it(worker.__name__)
        self._bounds = Bounds(size, size)
        self._wait = START_SECONDS
        self._preparation: tuple[Any, ...] = (worker, (), None)
        self._owns_ray = False
        self._beside = 0
        self._reserve: Placement | None = None
        self._pool: ActorPool | None = None
        self._number = 0  # of the group
        self._group: dict[str, Any] = {}  # how it communicates
        self._device = "cpu"
        self._next: list[Member] = []
        self._looked, self._change_seconds = 0.0, 2.0
        self._places: tuple[RankLocation, ...] = ()
        self._streams: dict[Any, int] = {}
        self._lost: set[int] = set()
        self._heartbeat = Heartbeat(timeout)
        self._environment = {
            # An allocator chosen for the driver (cudaMallocAsync, say) must not reach NCCL workers.
            "PYTORCH_CUDA_ALLOC_CONF": "",
            "PYTORCH_ALLOC_CONF": "",
        }
        atexit.register(self.close)

    def _call_it(self, title: str) -> None:
        """The title that Ray's dashboard shows."""
        self._title = title
        self._name = f"{title}-{uuid.uuid4().hex[:6]}"

    def replace_workers(self, worker: type, *args: Any) -> None:
        """Those that come later build the new worker too."""
        if self._pool is not None:
            *_, verb = self._pool.preparation
            self._pool.preparation = (worker, args, verb)
        super().replace_workers(worker, *args)

    def describe(self) -> tuple[RankLocation, ...]:
        """Where each rank runs, in rank order."""
        return self._places

    def close(self) -> None:
        """Kills the actors, gives back their places and ends a Ray that this fleet started."""
        import ray

        atexit.unregister(self.close)
        self._end("closed")
        pool, self._pool = self._pool, None
        reserve, self._reserve = self._reserve, None
        owns_ray, self._owns_ray = self._owns_ray, False
        if not ray.is_initialized():
            return
        try:
            if pool is not None:
                pool.dismiss([*pool.members, *pool.newcomers])
            if reserve is not None:
                reserve.close()
        finally:
            if owns_ray:
                disconnect()

    # ---- the beginning

    def _staff(
        self,
        worker: type,
        args: tuple[Any, ...],
        address: str | None,
        num_cpus: float,
        num_gpus: float,
        wait: float,
    ) -> None:
        share = share_of(num_cpus, num_gpus)
        self._wait = wait
        try:
            self._owns_ray = connect(self._bounds.most, address, num_cpus)
            self._environment |= threads_of(self._bounds.most + self._beside)
            if num_gpus:
                self._device = "cuda"
            else:
                self._environment["CUDA_VISIBLE_DEVICES"] = ""
            # NCCL refuses two ranks on one device; gloo carries their tensors through the host.
            backend = "gloo" if 0 < num_gpus < 1 else None
            self._group = {"device": self._device, "timeout": self.timeout, "backend": backend}
            self._reserve = Placement(self._name, share, self._bounds.least, self._bounds.most)
            self._reserve.wait(wait)
            options = {
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "runtime_env": {"env_vars": self._environment},
            }
            self._pool = ActorPool(self._name, self._reserve, options, self._preparation)
            self._occupy(self._pool, max(wait, START_SECONDS))
            self._build(self._pool, worker, args)
        except BaseException:
            self.close()
            raise

    def _occupy(self, pool: ActorPool, wait: float) -> None:
        """Starts the first ranks."""
        bundles = list(pool.reserve.nodes())
        pool.fill(bundles[: self._bounds.fit(len(bundles))], wait)
        self._place_ranks(pool.members)

    def _build(self, pool: ActorPool, worker: type, args: tuple[Any, ...]) -> None:
        """Builds the workers and their group; ranks that are lost meanwhile are replaced."""
        jobs: dict[int, Call] = dict.fromkeys(range(self.size), ("build", (worker, args)))
        try:
            self._collect("__init__", jobs, None)
            self._meet(pool.members)
        except WorkerLostError as error:
            log.warning("%s; another is started", error)
            self.recover()

    def _place_ranks(self, members: list[Member]) -> None:
        """Numbers the ranks, node by node."""
        assert self._pool is not None
        order = {bundle: index for index, bundle in enumerate(self._pool.reserve.bundles)}
        nodes = {m.node: order[m.bundle] for m in sorted(members, key=lambda m: -order[m.bundle])}
        members = sorted(members, key=lambda m: (nodes[m.node], order[m.bundle]))
        self._pool.members, self.size = members, len(members)
        self._places = tuple(
            RankLocation(rank, member.address, member.pid, self._device)
            for rank, member in enumerate(members)
        )

    def _meet(self, members: list[Member]) -> None:
        """Builds a group of ranks, whichever they were before."""
        self._place_ranks(members)
        self._number += 1
        self._ended, self._streams, self._lost = None, {}, set()
        assert self._pool is not None
        # Who reaches a rank's socket could be in the way: on one host nobody else shall.
        how = ({"address": LOOPBACK} if is_private() else {}) | self._group
        first = self._pool.members[0].actor
        jobs: dict[int, Call] = {
            rank: ("meet", (self._number, rank, self.size, first if rank else None, how))
            for rank in range(self.size)
        }
        self._collect("join", jobs, None)

    # ---- another number of ranks

    def recover(self) -> None:
        """Keeps the ranks that answer, replaces those that do not, or goes on without them."""
        if self._pool is None:
            raise FleetError("this fleet is closed")
        wanted = max(self.size, self._bounds.least)
        self._part_with_lost(self._pool)
        self._refill(self._pool, wanted)
        self._take(self._pool.ready()[: max(0, wanted - len(self._pool.members))])

    def _part_with_lost(self, pool: ActorPool) -> None:
        """Ends ranks that died or do not answer, and those that still say nothing after that."""
        ranks = list(pool.members)
        pool.part_with({ranks[rank] for rank in self._lost})
        pool.part_with(pool.mute())
        # Collect the reports of ranks that were blocked on the dead ones.
        deadline = time.monotonic() + self.grace
        while self._streams and time.monotonic() < deadline:
            list(self._poll(POLL_SECONDS))
        pool.part_with({ranks[rank] for rank in (*self._lost, *self._streams.values())})
        self._streams = {}

    def _refill(self, pool: ActorPool, wanted: int) -> None:
        """Waits for as many workers as are wanted, briefly where enough are left; or FleetError."""
        is_elastic = self._bounds.least < self._bounds.most
        is_enough = is_elastic and len(pool.members) >= self._bounds.least
        seconds = BRIEF_SECONDS if is_enough else self._wait
        pool.refill(wanted, seconds, self.timeout)
        if not pool.members and not pool.ready():
            why = pool.trouble or f"none came within {seconds:g} s"
            raise FleetError(f"no worker is left, and {why}")

    def should_resize(self, seconds_left: float) -> bool:
        """Polls every `LOOK_SECONDS`: is resizing worth its cost, or is a node being drained?"""
        pool, now = self._pool, time.monotonic()
        if pool is None or now - self._looked < LOOK_SECONDS:
            return False
        if self._bounds.least == self.size == self._bounds.most:
            return False
        self._looked = now
        pool.recruit()
        leaving = pool.reserve.leaving()
        staying, ready = [m for m in pool.members if m.node not in leaving], pool.ready()
        size = next_size(
            self._bounds,
            size=self.size,
            staying=len(staying),
            ready=len(ready),
            seconds_left=seconds_left,
            change_seconds=self._change_seconds,
        )
        is_same = size == self.size and (len(staying) == size or len(staying) + len(ready) < size)
        self._next = pool.members if is_same else [*staying, *ready][:size]
        return not is_same

    def resize(self) -> None:
        """Makes the change that was wanted: a new group, with what the ranks that stay hold."""
        began, pool = time.monotonic(), self._pool
        assert pool is not None
        gone = [member for member in pool.members if member not in self._next]
        pool.members = [member for member in pool.members if member in self._next]
        pool.dismiss(gone)
        for member in gone:
            pool.reserve.renew(member.bundle)
        self._take([member for member in self._next if member not in pool.members])
        self._change_seconds = time.monotonic() - began

    def _take(self, newcomers: list[Member]) -> None:
        assert self._pool is not None
        for newcomer in newcomers:
            self._pool.newcomers.remove(newcomer)
        self._meet([*self._pool.members, *newcomers])

    # ---- jobs and reports

    def _start(self, rank: int, job: Call, title: str) -> None:
        assert self._pool is not None
        actor = self._pool.members[rank].actor
        call = actor.job.options(num_returns="streaming", name=title)
        self._streams[call.remote(self._number, *job)] = rank

    def _poll(self, seconds: float) -> Iterator[tuple[int, Report]]:
        import ray

        if not self._streams:
            time.sleep(seconds)
            return
        ready, _ = ray.wait(list(self._streams), timeout=seconds, fetch_local=False)
        for stream in ready:
            rank = self._streams.pop(stream)
            report = next_report(stream)
            if report.kind == "item":
                self._streams[stream] = rank  # at the end of the queue: ranks take turns
            if report.kind == "lost":
                self._lost.add(rank)
            yield rank, report
        yield from self._silent()

    def _silent(self) -> Iterator[tuple[int, Report]]:
        """Ranks whose processes do not answer while their verbs run are lost."""
        assert self._pool is not None
        running = {rank: stream for stream, rank in self._streams.items()}
        for rank in self._heartbeat.silent(self._pool.members):
            if rank in running:
                del self._streams[running[rank]]
                self._lost.add(rank)
                yield rank, Report("lost", f"it did not answer for {self._heartbeat.limit:g} s")

    def _abort(self, reason: str) -> None:
        import ray

        if ray.is_initialized() and self._pool is not None:
            for member in self._pool.members:
                member.ask("abort", reason, self._number)
