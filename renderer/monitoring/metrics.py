"""What Ray's metrics say of a render; `configs/grafana/frieze.json` draws them.

Ray exports each under the name here with `ray_` before it, every ten seconds, from the driver.
Seconds are counters, not histograms: Ray passes on the middle of a bucket for each value in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..events import Event


@dataclass(frozen=True)
class Metric:
    """One metric: a counter only grows, a gauge says how things stand."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    tags: tuple[str, ...] = ()


METRICS = (
    Metric("frieze_steps_total", "counter", "Steps done, on the whole canvas."),
    Metric(
        "frieze_seconds_total",
        "counter",
        "Seconds of work by part: compute and exchange (waiting for other ranks) of the slowest "
        "rank of each step, save, decode, and driver (a step's time outside the ranks).",
        ("part",),
    ),
    Metric("frieze_step_seconds", "gauge", "Seconds that the last step took."),
    Metric("frieze_blocks_total", "counter", "Blocks of pixels that came to be whole on disk."),
    Metric(
        "frieze_written_bytes_total",
        "counter",
        "Bytes written, before compression: pixels of the full size, or saved latents.",
        ("what",),
    ),
    Metric("frieze_moved_bytes_total", "counter", "Bytes that ranks sent to each other in steps."),
    Metric("frieze_failures_total", "counter", "Failures that the render met."),
    Metric("frieze_recoveries_total", "counter", "Failures after which the render went on."),
    Metric("frieze_workers", "gauge", "Workers that draw at present."),
    Metric("frieze_progress_ratio", "gauge", "Share of the steps of this stage that are done."),
    Metric("frieze_decoded_ratio", "gauge", "Share of the blocks that are whole on disk."),
    Metric("frieze_left_seconds", "gauge", "Seconds until the last block, of the whole render."),
)


class MetricSink(Protocol):
    """Where figures go; `cluster.ray.metrics.RayMetrics` is one."""

    def add(self, name: str, amount: float, **tags: str) -> None: ...

    def set(self, name: str, value: float) -> None: ...


class Meter:
    """Turns a render's events into figures."""

    def __init__(self, sink: MetricSink) -> None:
        self._sink = sink

    def __call__(self, event: Event) -> None:
        """Count one event; kinds that say nothing countable are passed over."""
        if "left" in event.facts:
            self._sink.set("frieze_left_seconds", event.facts["left"])
        if count := getattr(self, f"_{event.kind}", None):
            count(event, event.facts)

    def _workers(self, event: Event, facts: Any) -> None:
        self._sink.set("frieze_workers", len(facts["workers"]))

    def _step(self, event: Event, facts: Any) -> None:
        add = self._sink.add
        add("frieze_steps_total", 1)
        for part in ("compute", "exchange", "driver"):
            add("frieze_seconds_total", facts.get(part, 0.0), part=part)
        add("frieze_moved_bytes_total", facts.get("moved_bytes", 0))
        self._sink.set("frieze_step_seconds", event.seconds)
        self._sink.set("frieze_progress_ratio", event.step / max(1, event.num_steps))

    def _save(self, event: Event, facts: Any) -> None:
        self._sink.add("frieze_seconds_total", event.seconds, part="save")
        self._sink.add("frieze_written_bytes_total", facts.get("bytes", 0), what="latents")

    def _block(self, event: Event, facts: Any) -> None:
        self._sink.add("frieze_blocks_total", facts["new"])
        self._sink.add("frieze_written_bytes_total", facts["bytes"], what="pixels")
        self._sink.add("frieze_seconds_total", facts["elapsed"], part="decode")
        self._sink.set("frieze_decoded_ratio", event.blocks / max(1, event.num_blocks))

    def _failure(self, event: Event, facts: Any) -> None:
        self._sink.add("frieze_failures_total", 1)

    def _recovered(self, event: Event, facts: Any) -> None:
        self._sink.add("frieze_recoveries_total", 1)
        self._resized(event, facts)

    def _resized(self, event: Event, facts: Any) -> None:
        if "num_workers" in facts:
            self._sink.set("frieze_workers", facts["num_workers"])

    def _done(self, event: Event, facts: Any) -> None:
        self._sink.set("frieze_left_seconds", 0)
        self._sink.set("frieze_workers", 0)

    def _ended(self, event: Event, facts: Any) -> None:
        self._sink.add("frieze_failures_total", 0 if facts.get("is_asked") else 1)
        self._sink.set("frieze_workers", 0)
