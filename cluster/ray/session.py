"""The Ray that fleets run on: found, or started and stopped by this process alone."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..fleet import FleetError, cancellation
from .worker_actor import last_line

OBJECT_STORE_BYTES = 256 * 2**20  # verbs return numbers; latents never pass through Ray
REACH_SECONDS = 10.0
START_TRIES = 3
LATE = "timed out during startup"  # in what Ray raises then
# Ray would start idle workers first and let the driver in when all have registered: for ever, where
# one of them dies. Actors with variables of their own use none of them.
SYSTEM_CONFIG = {"prestart_worker_first_driver": False}
TOKEN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"

_private = threading.Event()  # set while this process is connected to a Ray that it started


@contextlib.contextmanager
def session(size: int, address: str | None = None, num_cpus: float = 1.0) -> Iterator[None]:
    """One Ray for all fleets of up to `size` workers inside, found as `launch` finds it.

    Each fleet would otherwise start and stop a private one. Raises `FleetError`.
    """
    owns_ray = connect(size, address, num_cpus)
    try:
        yield
    finally:
        if owns_ray:
            disconnect()


def connect(size: int, address: str | None, num_cpus: float) -> bool:
    """Connects to a Ray unless this process is; says whether to disconnect when done."""
    import ray

    if ray.is_initialized():
        return False
    with _own_stops():
        return _connect(size, address or os.environ.get("RAY_ADDRESS"), num_cpus)


@contextlib.contextmanager
def _own_stops() -> Iterator[None]:
    """Keeps what this program does on SIGTERM: Ray would put two handlers in its place.

    Not even while it starts, when a stop is wished for most. One exits; the other, of its core,
    prints the machine's stack.
    """
    set_handler, before = signal.signal, signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before in (signal.SIG_DFL, None):
        yield
        return
    from ray._private import ray_constants  # Ray offers no public way to leave them out

    def kept(number: int, handler: Any) -> Any:
        return before if number == signal.SIGTERM else set_handler(number, handler)

    signal.signal = kept  # type: ignore[assignment]
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        signal.signal = set_handler


def _connect(size: int, address: str | None, num_cpus: float) -> bool:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _reach(address)
        try:
            ray.init(address=address, **quiet)
        except ray.exceptions.AuthenticationError as error:
            raise FleetError(f"the Ray at {address!r} does not let us in; {TOKEN}") from error
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise FleetError(_refused(address, error)) from error
    else:
        start(
            num_cpus=max(1, math.ceil(size * num_cpus)),
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
        _private.set()
    return True


def start(**options: Any) -> None:
    """Starts a Ray on this machine, with options of `ray.init`; raises `FleetError`.

    It listens on the loopback interface alone: who reaches a Ray may run code there. Ray gives a
    node half a minute to start, which is too little where much else runs.
    """
    import ray

    for turn in range(1, START_TRIES + 1):
        cancellation.check()
        try:
            with _on_loopback():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    _system_config=SYSTEM_CONFIG,
                    **options,
                )
            return
        except Exception as error:  # Ray raises nothing narrower for a node that is late
            ray.shutdown()
            if LATE in str(error) and turn < START_TRIES:
                continue
            if LATE in str(error):
                told = last_line(error)
                raise FleetError(f"Ray did not start here, {turn} times: {told}") from error
            raise


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """What starts inside has the address 127.0.0.1, as Ray does it on a Mac."""
    from ray._private import ray_constants  # Ray refuses that address where it is asked for

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def is_private() -> bool:
    """Whether the Ray that this process is part of was started by it, on this host alone."""
    return _private.is_set()


def is_connected() -> bool:
    """Whether this process is part of a Ray already, whatever address is named."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def disconnect() -> None:
    """Leaves Ray, which ends one that this process started."""
    import ray

    _private.clear()
    ray.shutdown()


def offers(resource: str) -> bool:
    """Whether any node of the Ray that this process is connected to has a resource."""
    import ray

    return bool(ray.cluster_resources().get(resource))


def threads_of(size: int) -> dict[str, str]:
    """How many threads a worker may use, where that is ours to say: a private Ray has one host."""
    if "OMP_NUM_THREADS" in os.environ:
        return {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    if _private.is_set():
        return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // size))}
    return {}


def _refused(address: str, error: Exception) -> str:
    """What Ray says of a cluster that it does not join, as one line."""
    versions = re.findall(r"(Ray|Python): (\S+)", str(error))
    if str(error).startswith("Version mismatch") and len(versions) == 4:
        theirs, ours = (", ".join(map(" ".join, pair)) for pair in (versions[:2], versions[2:]))
        return (
            f"the cluster at {address!r} runs {theirs} and this driver {ours}; they must be the "
            "same: use the cluster's versions here, or let the driver run there (frieze submit)"
        )
    # What answers there and still lets nobody in most often wants another token.
    more = f"; if it wants a token, {TOKEN}" if isinstance(error, ConnectionError) else ""
    return f"no Ray at {address!r}: {last_line(error)}{more}"


def _reach(address: str) -> None:
    """Refuses an address that nobody answers at: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise FleetError(f"{address!r} is not a Ray address; give HOST:PORT, such as head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise FleetError(f"no Ray at {address!r}: {error}") from error
