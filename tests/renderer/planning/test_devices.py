"""Where a render runs, and devices that are none."""

from __future__ import annotations

from typing import Any

import pytest

from frieze.renderer.errors import PlanError
from frieze.renderer.models.device import device_type
from frieze.renderer.planning import devices
from frieze.renderer.spec.render_spec import RenderSpec, parse


@pytest.mark.parametrize(
    ("variable", "fields", "on_cluster", "uses_ray"),
    [
        (None, {}, False, False),
        ("", {}, False, False),
        ("head:6379", {}, True, True),
        (None, {"address": "head:6379"}, True, True),
        (None, {"address": "auto"}, True, True),
        (None, {"address": "local"}, False, True),  # one that is started here
        (None, {"workers": 2}, False, True),
        (None, {"workers": "1..2"}, False, True),
        ("head:6379", {"workers": 2, "local": True}, False, False),
    ],
)
def test_where_a_render_runs(
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    fields: dict[str, Any],
    on_cluster: bool,
    uses_ray: bool,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    spec = parse(fields)
    assert (devices.on_cluster(spec), devices.uses_ray(spec)) == (on_cluster, uses_ray)
    batch = devices.on_ray(spec.most_workers, spec.address, local=spec.local)
    assert batch == uses_ray


@pytest.mark.parametrize("name", ["mps", "gpu", "cuda:x", "cuda:", "", "cuda:99999", "meta"])
@pytest.mark.parametrize("memory", [None, 8.0])
def test_a_device_that_draws_nothing_is_refused_wherever_it_is(
    name: str, memory: float | None
) -> None:
    spec = RenderSpec(device=name, device_memory=memory)
    with pytest.raises(PlanError, match="auto, cpu, cuda or cuda:0 works"):
        devices.check(spec)


def test_a_device_has_the_type_of_its_name() -> None:
    assert [device_type(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda"]
    assert device_type("auto") in ("cpu", "cuda")
