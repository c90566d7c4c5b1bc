"""Ranks as Ray actors in a placement group: with `ray_seat` and `ray_session`, the door to ray.

Ray starts, places and watches the processes; tensors travel between them by `comm.distributed`.
Nothing here stops a Ray that this fleet did not start.
"""

from __future__ import annotations

import atexit
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self

from .fleet import GRACE_SECONDS, POLL_SECONDS, Fleet, FleetError, Job, T
from .ray_seat import RaySeat, last_line, next_report, version
from .ray_session import connect, disconnect, threads_of
from .seat import Errand, Place, Report

START_SECONDS = 60.0  # the least that a process may take to start: it imports torch


class RayFleet(Fleet):
    """Ranks as actors, one per bundle of a placement group; ranks of one node are neighbours."""

    @classmethod
    def launch(
        cls,
        worker: type,
        size: int,
        *args: Any,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        timeout: float = 600.0,
        wait: float = 60.0,
        beside: int = 0,
    ) -> Self:
        """Places `size` workers, each with `num_cpus` and `num_gpus`, and builds their group.

        The Ray used is the one this process is connected to, else `address`, else RAY_ADDRESS,
        else a private one started for this fleet. Raises `FleetError` when the workers cannot be
        placed and started within `wait` seconds each. `timeout` (seconds) is how long a rank may
        stay silent in a verb or wait for another in a collective. On a private Ray the host's
        threads are shared out evenly, to `beside` workers of other fleets too.
        """
        fleet = cls(worker, size, timeout)
        fleet._beside = beside
        fleet._staff(worker, args, address, num_cpus, num_gpus, wait)
        return fleet

    @classmethod
    def apart(
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
        fleet = cls(Errand, 1, timeout)
        fleet._call_it(getattr(function, "__name__", "function"))
        fleet._staff(Errand, (), address, num_cpus, num_gpus, wait)
        with fleet:
            result: T = fleet.one("apart", function, *args)
        return result

    def __init__(self, worker: type, size: int, timeout: float) -> None:
        super().__init__(worker, size, timeout)
        self._call_it(worker.__name__)
        self._owns_ray = False
        self._beside = 0
        self._group: Any = None
        self._actors: list[Any] = []
        self._places: tuple[Place, ...] = ()
        self._streams: dict[Any, int] = {}
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

    def _staff(
        self,
        worker: type,
        args: tuple[Any, ...],
        address: str | None,
        num_cpus: float,
        num_gpus: float,
        wait: float,
    ) -> None:
        try:
            self._owns_ray = connect(self.size, address, num_cpus)
            self._environment |= threads_of(self.size + self._beside)
            bundles = self._reserve(num_cpus, num_gpus, wait)
            self._occupy(bundles, num_cpus, num_gpus, max(wait, START_SECONDS))
            # NCCL refuses two ranks on one device; gloo carries their tensors through the host.
            backend = "gloo" if 0 < num_gpus < 1 else None
            self._open(worker, args, {"timeout": self.timeout, "backend": backend})
        except BaseException:
            self.close()
            raise

    def describe(self) -> tuple[Place, ...]:
        """Where each rank runs, in rank order."""
        return self._places

    def close(self) -> None:
        """Kills the actors, gives back their places and ends a Ray that this fleet started."""
        import ray

        atexit.unregister(self.close)
        self._end("closed")
        actors, self._actors = self._actors, []
        group, self._group = self._group, None
        owns_ray, self._owns_ray = self._owns_ray, False
        if not ray.is_initialized():
            return
        try:
            for actor in actors:
                ray.kill(actor)
            if group is not None:
                ray.util.remove_placement_group(group)
            if actors:
                self._see_off()
        finally:
            if owns_ray:
                disconnect()

    def _reserve(self, num_cpus: float, num_gpus: float, wait: float) -> list[int]:
        """Reserves one bundle per rank; returns bundles in rank order, node by node."""
        import ray

        share = {"CPU": float(num_cpus), "GPU": float(num_gpus)}
        bundle = {resource: count for resource, count in share.items() if count > 0}
        if not bundle:
            raise FleetError("a worker needs num_cpus or num_gpus above 0")
        group = ray.util.placement_group([bundle] * self.size, strategy="PACK", name=self._name)
        self._group = group
        deadline = time.monotonic() + wait
        while (table := ray.util.placement_group_table(group))["state"] != "CREATED":
            if time.monotonic() > deadline:
                raise FleetError(self._shortage(bundle, wait))
            time.sleep(POLL_SECONDS / 4)
        nodes = table["bundles_to_node_id"]
        return sorted(range(self.size), key=lambda index: (nodes[index], index))

    def _shortage(self, bundle: dict[str, float], wait: float) -> str:
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        asked = " and ".join(f"{count:g} {name}" for name, count in bundle.items())
        has = ", ".join(
            f"{total.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in bundle
        )
        return (
            f"{self.size} workers of {asked} each did not fit on the cluster within {wait:g} s: "
            f"it has {has}; use fewer workers, add nodes, or --wait longer for nodes that start"
        )

    def _occupy(self, bundles: list[int], num_cpus: float, num_gpus: float, wait: float) -> None:
        """Starts one actor per bundle."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy

        if not num_gpus:
            self._environment["CUDA_VISIBLE_DEVICES"] = ""
        # An actor's calls run one after another; "control" is answered while a verb runs.
        seat = ray.remote(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 2},
            runtime_env={"env_vars": self._environment},
        )(RaySeat)
        self._actors = [
            seat.options(
                name=f"{self._name}-rank{rank}",
                scheduling_strategy=Strategy(self._group, placement_group_bundle_index=bundle),
            ).remote()
            for rank, bundle in enumerate(bundles)
        ]
        device = "cuda" if num_gpus else "cpu"
        found = [self._answer(rank, wait, "whereabouts") for rank in range(self.size)]
        self._places = tuple(
            Place(rank, node, pid, device) for rank, (node, pid, _) in enumerate(found)
        )
        for place, (_, _, theirs) in zip(self._places, found, strict=True):
            if theirs != version():
                raise FleetError(f"{place} runs frieze {theirs}, this driver {version()}")

    def _open(self, worker: type, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        ranks = range(self.size)
        self._collect("__init__", dict.fromkeys(ranks, ("build", (worker, args))), None)
        address, device = self._places[0].node, self._places[0].device
        port = self._answer(0, GRACE_SECONDS, "free_port", address)
        where = {"address": address, "port": port, "device": device, **options}
        jobs: dict[int, Job] = {rank: ("meet", (rank, self.size, where)) for rank in ranks}
        self._collect("join", jobs, None)

    def _answer(self, rank: int, seconds: float, method: str, *args: Any) -> Any:
        """A control call's answer, polled so that Ctrl-C works."""
        import ray

        call = getattr(self._actors[rank], method).options(concurrency_group="control")
        answer = call.remote(*args)
        deadline = time.monotonic() + seconds
        while not ray.wait([answer], timeout=POLL_SECONDS)[0]:
            if time.monotonic() > deadline:
                raise FleetError(f"rank {rank} did not start within {seconds:g} s")
        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            raise FleetError(f"rank {rank} did not start: {last_line(error)}") from error

    def _start(self, rank: int, job: Job, title: str) -> None:
        call = self._actors[rank].job.options(num_returns="streaming", name=title)
        self._streams[call.remote(*job)] = rank

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
            yield rank, report

    def _abort(self, reason: str) -> None:
        import ray

        if ray.is_initialized():
            for actor in self._actors:
                actor.abort.options(concurrency_group="control").remote(reason)

    def _see_off(self) -> None:
        """Waits until this node's processes are gone: none may write after the fleet closed."""
        import ray

        here = ray.util.get_node_ip_address()
        pids = {place.pid for place in self._places if place.node == here}
        deadline = time.monotonic() + 2 * GRACE_SECONDS
        while any(map(_is_running, pids)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
