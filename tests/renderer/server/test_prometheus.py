"""/metrics, read by a parser that is not ours and by the format's own grammar."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest

from frieze.renderer.monitoring.metrics import METRICS
from frieze.renderer.server.prometheus import OWN, TYPE, PrometheusText
from support.drawing import PROMPT
from support.serving import served, settings

ODD = 'a "name"\\ of\ntwo lines, {x="y"} 1'
# Prometheus' text format, version 0.0.4: comments, and samples with labels and one number.
LINE = re.compile(
    r"# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .*|"
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="([^"\\\n]|\\[\\"n])*",?)*\})? [-+.0-9einfEINFna]+'
)


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples, by name and labels."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(text))
    assert len({each.name for each in families}) == len(families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for each in families
        for sample in each.samples
    }


def test_any_label_can_be_read_back() -> None:
    sink = PrometheusText()
    sink.add("frieze_requests_total", 2, status=ODD)
    text = sink.text({"queued": 3})
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    assert not LINE.fullmatch(f'frieze_requests_total{{status="{ODD}"}} 2')  # the control
    found = parsed(text)
    assert found["frieze_requests_total", (("status", ODD),)] == 2
    assert found["frieze_jobs", (("state", "queued"),)] == 3


def test_a_server_s_figures_are_those_of_what_it_drew(tmp_path: Path) -> None:
    with served(settings(tmp_path / "served")) as at:
        asked = {"prompt": PROMPT, "size": "64x64"}
        assert httpx2.post(f"{at.api}/images/generations", json=asked, timeout=100).is_success
        assert httpx2.get(f"{at.base}/nothing").status_code == 404
        answer = httpx2.get(f"{at.base}/metrics")
    assert answer.headers["content-type"] == TYPE
    lines = answer.text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    told = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert told == [metric.name for metric in (*METRICS, *OWN)]
    found = parsed(answer.text)
    assert found["frieze_jobs", (("state", "completed"),)] == 1
    assert found["frieze_requests_total", (("status", "200"),)] == 1
    assert found["frieze_requests_total", (("status", "404"),)] == 1
