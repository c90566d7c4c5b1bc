"""Figures for Ray's metrics endpoint: from this process, for as long as it is connected to Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Definition(Protocol):
    """A counter or a gauge, and the tags that tell its series apart."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def tags(self) -> tuple[str, ...]: ...


class RayMetrics:
    """Named counters and gauges, every series tagged with `render`."""

    def __init__(self, definitions: Iterable[Definition], render: str) -> None:
        from ray.util import metrics

        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._render = render
        self._metrics: dict[str, Any] = {
            each.name: kinds[each.kind](
                each.name, description=each.description, tag_keys=(*each.tags, "render")
            )
            for each in definitions
        }

    def add(self, name: str, amount: float, **tags: str) -> None:
        """Let a counter grow; by nothing where the amount is 0."""
        if amount > 0 and _is_connected():
            self._metrics[name].inc(amount, tags={**tags, "render": self._render})

    def set(self, name: str, value: float) -> None:
        """Say how a gauge stands."""
        if _is_connected():
            self._metrics[name].set(value, tags={"render": self._render})


def _is_connected() -> bool:
    import ray

    return bool(ray.is_initialized())
