"""Shares of a Ray cluster that are reserved for ranks: what is asked for, and what there is.

A share that no node can give yet is the demand to which Ray's autoscaler answers. One whose node
died is placed anew by Ray as soon as it can be.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..fleet import POLL_SECONDS, FleetError, cancellation

SETTLE_SECONDS = 1.0  # how long shares beyond the fewest may take where there is room for them


def share_of(num_cpus: float, num_gpus: float) -> dict[str, float]:
    """What one rank takes of a node; raises `FleetError` if that is nothing."""
    share = {"CPU": float(num_cpus), "GPU": float(num_gpus)}
    share = {resource: count for resource, count in share.items() if count > 0}
    if not share:
        raise FleetError("a worker needs num_cpus or num_gpus above 0")
    return share


def check_room(size: int, *, num_cpus: float, num_gpus: float, wait: float) -> None:
    """Returns as soon as the Ray that is connected has room for `size` ranks at once.

    The room is given back. Raises `FleetError` that says what is missing after `wait` seconds.
    """
    reserve = Placement(f"Room-{uuid.uuid4().hex[:6]}", share_of(num_cpus, num_gpus), size, size)
    try:
        reserve.wait(wait)
    finally:
        reserve.close()


@dataclass(frozen=True, eq=False)
class Bundle:
    """One rank's share, in a placement group of all, or of its own."""

    group: Any
    index: int
    is_alone: bool


class Placement:
    """Shares for `least` ranks, had all together or not at all, and up to `most` one by one."""

    def __init__(self, name: str, share: Mapping[str, float], least: int, most: int) -> None:
        from ray.util import placement_group

        self._name = name
        self._share = dict(share)
        self._least, self._num_more = least, 0
        first = placement_group([self._share] * least, strategy="PACK", name=name)
        self.bundles = [Bundle(first, index, False) for index in range(least)]
        self.bundles += [self._alone() for _ in range(least, most)]

    def wait(self, seconds: float) -> None:
        """Returns when the fewest are placed, and those beyond that have room already."""
        deadline = time.monotonic() + seconds
        while len(self.nodes()) < self._least:
            cancellation.check()
            if time.monotonic() > deadline:
                raise FleetError(self._shortage(seconds))
            time.sleep(POLL_SECONDS / 4)
        deadline = time.monotonic() + SETTLE_SECONDS
        while len(self.nodes()) < len(self.bundles) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)

    def nodes(self) -> dict[Bundle, str]:
        """The node of each bundle that is placed on one that lives."""
        import ray

        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        groups = {bundle.group.id: bundle.group for bundle in self.bundles}
        tables = {key: ray.util.placement_group_table(group) for key, group in groups.items()}
        placed = {}
        for bundle in self.bundles:
            table = tables[bundle.group.id]
            node = table["bundles_to_node_id"].get(bundle.index, "")
            if table["state"] in ("CREATED", "RESCHEDULING") and node in alive:
                placed[bundle] = node
        return placed

    def leaving(self) -> frozenset[str]:
        """Nodes that Ray drains: to scale down, or because their provider takes them back."""
        from ray._private.state import state  # Ray offers no public way to ask

        return frozenset(state.get_draining_nodes())

    def renew(self, bundle: Bundle) -> None:
        """Gives back a share of its own, and asks for another in its place."""
        import ray

        if bundle.is_alone:
            ray.util.remove_placement_group(bundle.group)
            self.bundles[self.bundles.index(bundle)] = self._alone()

    def close(self) -> None:
        """Gives everything back."""
        import ray

        for group in {bundle.group.id: bundle.group for bundle in self.bundles}.values():
            ray.util.remove_placement_group(group)

    def _alone(self) -> Bundle:
        from ray.util import placement_group

        self._num_more += 1
        name = f"{self._name}-more{self._num_more}"
        return Bundle(placement_group([self._share], name=name), 0, True)

    def _shortage(self, seconds: float) -> str:
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        asked = " and ".join(f"{count:g} {name}" for name, count in self._share.items())
        has = ", ".join(
            f"{total.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in self._share
        )
        return (
            f"{self._least} workers of {asked} each did not fit on the cluster within "
            f"{seconds:g} s: it has {has}; use fewer workers, add nodes, or --wait longer for "
            "nodes that start"
        )
