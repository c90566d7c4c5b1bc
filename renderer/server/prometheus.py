"""Figures as Prometheus reads them: its text format, version 0.0.4."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from ..monitoring.metrics import METRICS, Metric

OWN = (
    Metric("frieze_jobs", "gauge", "Jobs that are kept, by their state.", ("state",)),
    Metric("frieze_requests_total", "counter", "Requests answered, by status.", ("status",)),
)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PrometheusText:
    """A sink of metrics that tells them as text; safe from any thread."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self._turn = threading.Lock()

    def add(self, name: str, amount: float, **tags: str) -> None:
        """A counter grows."""
        with self._turn:
            values, key = self._values.setdefault(name, {}), tuple(sorted(tags.items()))
            values[key] = values.get(key, 0.0) + amount

    def set(self, name: str, value: float, **tags: str) -> None:
        """A gauge says how things stand."""
        with self._turn:
            self._values.setdefault(name, {})[tuple(sorted(tags.items()))] = value

    def text(self, jobs: Mapping[str, int]) -> str:
        """All that is known; `jobs` are the jobs in each state."""
        for state in ("queued", "in_progress", "completed", "failed", "cancelled"):
            self.set("frieze_jobs", jobs.get(state, 0), state=state)
        with self._turn:
            return "".join(line for metric in (*METRICS, *OWN) for line in self._lines(metric))

    def _lines(self, metric: Metric) -> Iterable[str]:
        yield f"# HELP {metric.name} {_escaped(metric.description)}\n"
        yield f"# TYPE {metric.name} {metric.kind}\n"
        for tags, value in sorted(self._values.get(metric.name, {}).items()):
            labels = ",".join(f'{name}="{_label(text)}"' for name, text in tags)
            yield (
                f"{metric.name}{{{labels}}} {value!r}\n" if labels else f"{metric.name} {value!r}\n"
            )


def _escaped(text: str) -> str:
    """A text of one line, as the format wants it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label(text: str) -> str:
    """A label's value, between quotation marks."""
    return _escaped(text).replace('"', '\\"')
