"""What Ray's endpoint says of a render is what its log says; the dashboard draws what there is."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

from frieze.renderer import Event, render
from frieze.renderer.monitoring.metrics import METRICS, Meter
from frieze.renderer.monitoring.run_log import read
from support.drawing import small_spec
from tolerances import AMPLE

DASHBOARD = Path(__file__).resolve().parents[3] / "configs" / "grafana" / "frieze.json"
EXPORTED = {f"ray_{metric.name}" for metric in METRICS}
SAMPLE = re.compile(r"(ray_frieze_\w+)\{(.*)\} (\S+)")


def expressions(dashboard: dict[str, Any]) -> list[str]:
    queries = [each["query"]["query"] for each in dashboard["templating"]["list"][1:]]
    return queries + [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]


def unknown(texts: list[str]) -> set[str]:
    return {name for text in texts for name in re.findall(r"ray_\w+", text)} - EXPORTED


def test_every_expression_of_the_dashboard_names_a_metric_that_exists() -> None:
    texts = expressions(json.loads(DASHBOARD.read_text()))
    assert unknown(texts) == set()
    assert {name for text in texts for name in re.findall(r"ray_\w+", text)} == EXPORTED


def test_every_tag_that_the_dashboard_groups_by_exists() -> None:
    tags = {name: {"render"} for name in EXPORTED}
    tags |= {f"ray_{m.name}": {"render", *m.tags} for m in METRICS}
    for text in expressions(json.loads(DASHBOARD.read_text())):
        (name,) = set(re.findall(r"ray_\w+", text))
        used = re.findall(r"by \((\w+)\)", text) + re.findall(r"\{(\w+)=", text)
        assert set(used) <= tags[name], text


def test_control_an_unknown_metric_is_seen() -> None:
    assert unknown(["rate(ray_frieze_stepz_total[1m])"]) == {"ray_frieze_stepz_total"}


def samples(url: str) -> dict[tuple[str, str], float]:
    """Values by metric and by its own tag (part, what), of the render named `seen`."""
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags.get("render") == "seen":
            found[name, tags.get("part", tags.get("what", ""))] = float(value)
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_ray_scrapes_the_figures_of_the_log(ray_cluster: int, tmp_path: Path) -> None:
    names: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "workers":
            names.extend(ray.util.list_named_actors())

    render(small_spec(tmp_path / "seen.zarr", local=False, workers=2), on_event=listen)
    assert {name.rpartition("-")[2] for name in names} >= {"worker0", "worker1"}
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    expected = figures(tmp_path / "seen.zarr")
    found: dict[tuple[str, str], Any] = {}
    deadline = time.monotonic() + AMPLE
    # A scrape has the gauges that were set since the last one only.
    while {key: found.get(key) for key in expected} != expected and time.monotonic() < deadline:
        time.sleep(0.5)
        found |= {key: pytest.approx(value, rel=1e-3) for key, value in samples(url).items()}
    assert {key: found.get(key) for key in expected} == expected
    # A failure or a recovery is no series before the first of them.
    unseen = {"ray_frieze_failures_total", "ray_frieze_recoveries_total"}
    assert {name for name, _ in found} == EXPORTED - unseen


def figures(store: Path) -> dict[tuple[str, str], float]:
    """What is to be exported of a finished render of four steps, from its log."""
    lines = read(store)
    found = {("ray_frieze_steps_total", ""): 4.0, ("ray_frieze_workers", ""): 0.0}
    found |= {("ray_frieze_decoded_ratio", ""): 1.0, ("ray_frieze_progress_ratio", ""): 1.0}
    for kind, field, name, tag in (
        ("step", "moved_bytes", "ray_frieze_moved_bytes_total", ""),
        ("step", "compute", "ray_frieze_seconds_total", "compute"),
        ("step", "exchange", "ray_frieze_seconds_total", "exchange"),
        ("save", "seconds", "ray_frieze_seconds_total", "save"),
        ("block", "elapsed", "ray_frieze_seconds_total", "decode"),
        ("block", "new", "ray_frieze_blocks_total", ""),
        ("save", "bytes", "ray_frieze_written_bytes_total", "latents"),
        ("block", "bytes", "ray_frieze_written_bytes_total", "pixels"),
    ):
        found[name, tag] = float(sum(line[field] for line in lines if line["event"] == kind))
    return found


class Sums(Counter[str]):
    """A sink that adds up."""

    def add(self, name: str, amount: float, **tags: str) -> None:
        self[name] += amount  # type: ignore[assignment]

    def set(self, name: str, value: float) -> None:
        self[name] = value  # type: ignore[assignment]


def test_failures_recoveries_and_new_sizes_are_counted() -> None:
    sums = Sums()
    count = Meter(sums)
    count(Event("workers", facts={"workers": [{}, {}, {}]}))
    for kind, facts in (("failure", {}), ("resized", {"num_workers": 2}), ("recovered", {})):
        count(Event(kind, facts=facts))  # type: ignore[arg-type]
    assert (sums["frieze_failures_total"], sums["frieze_recoveries_total"]) == (1, 1)
    assert sums["frieze_workers"] == 2
    count(Event("stage", facts={"left": 65.0}))
    assert sums["frieze_left_seconds"] == 65.0
    count(Event("ended", facts={"is_asked": True}))
    assert (sums["frieze_failures_total"], sums["frieze_workers"]) == (1, 0)
    count(Event("ended", facts={"is_asked": False}))
    assert sums["frieze_failures_total"] == 2
    count(Event("note", message="nothing to count"))
    count(Event("done"))
    assert sums["frieze_left_seconds"] == 0
