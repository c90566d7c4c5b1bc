"""A plan that is accepted draws; one that is refused names a size or number of workers that is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoints
from frieze.renderer import PlanError, plan, render
from frieze.renderer.spec.render_spec import RenderSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "hidiffusion": {
        "raunet": [True, False],
        "windows": [True, False],
        "schedule": ["published", "aggressive", "progressive"],
        "strided": [None, 0.0, 0.5, 1.0],
        "pooled": [None, 0.0, 0.5, 1.0],
        "shift": ["seeded", "steps"],
        "odd": ["cut", "resize"],
    },
    "cinescale": {
        "fusion": ["hwc", "hw", "wc", "none"],
        "fast": [True, False],
        "jitter": ["separable", "released", "none"],
        "dilation": [True, False],
        "free_u": [True, False],
    },
}
# What a refusal says would work, and the field that it is of.
REMEDIES = (
    (r"^height \d+ is no multiple of .* works is (\d+)$", "height"),
    (r"^width \d+ is no multiple of .* works is (\d+)$", "width"),
    (r"use at most (\d+) workers?", "workers"),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    names = ("sd15-deep", "sdxl-deep")
    return {name: str(checkpoints.build(name, tmp_path_factory.mktemp(name))) for name in names}


@st.composite
def fields(draw: st.DrawFn, largest: int) -> dict[str, Any]:
    """Fields of a spec that may or may not be drawn; `model` is a layout's name."""
    method = draw(st.sampled_from(sorted(OPTIONS)))
    given = {name: draw(st.sampled_from(of)) for name, of in OPTIONS[method].items()}
    return {
        "model": draw(st.sampled_from(("sd15-deep", "sdxl-deep"))),
        "method": method,
        "method_options": {name: value for name, value in given.items() if value is not None},
        "height": 8 * draw(st.integers(8, largest // 8)),
        "width": 8 * draw(st.integers(8, largest // 8)),
        "workers": draw(st.integers(1, 6)),
        "num_inference_steps": draw(st.integers(1, 3)),
        "device": "cpu",
        "local": True,
    }


def refusal(spec: RenderSpec) -> str | None:
    try:
        plan(spec)
    except PlanError as error:
        return str(error)
    return None


def accepted(spec: RenderSpec) -> RenderSpec:
    """The spec, changed as refusals say; none may say anything of one field twice."""
    told: dict[str, str] = {}
    while (text := refusal(spec)) is not None:
        found = [(re.search(pattern, text), name) for pattern, name in REMEDIES]
        named = [(match[1], name) for match, name in found if match]
        assert named, f"{text}: it names nothing that works"
        value, name = named[0]
        assert name not in told, f"{text}, where {told} was followed"
        told[name] = text
        spec = spec.model_copy(update={name: int(value)})
    return spec


def refusals_name_what_works(folders: dict[str, str], fields: dict[str, Any]) -> None:
    accepted(RenderSpec(**fields | {"model": folders[fields["model"]]}))


def accepted_plans_draw(folders: dict[str, str], folder: Path, fields: dict[str, Any]) -> None:
    spec = accepted(RenderSpec(**fields | {"model": folders[fields["model"]]}))
    out = folder / "drawn.png"
    render(spec.model_copy(update={"out": str(out), "overwrite": True}))
    assert out.is_file()


QUICK = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(QUICK, max_examples=40)
@given(fields=fields(largest=640))
def test_refusals_name_what_works(folders: dict[str, str], fields: dict[str, Any]) -> None:
    refusals_name_what_works(folders, fields)


@settings(QUICK, max_examples=2)
@given(fields=fields(largest=256))
def test_accepted_plans_draw(
    folders: dict[str, str], tmp_path: Path, fields: dict[str, Any]
) -> None:
    accepted_plans_draw(folders, tmp_path, fields)


@pytest.mark.slow
@settings(QUICK, max_examples=1000)
@given(fields=fields(largest=1024))
def test_refusals_name_what_works_in_many_cases(
    folders: dict[str, str], fields: dict[str, Any]
) -> None:
    refusals_name_what_works(folders, fields)


@pytest.mark.slow
@settings(QUICK, max_examples=80)
@given(fields=fields(largest=384))
def test_accepted_plans_draw_in_many_cases(
    folders: dict[str, str], tmp_path: Path, fields: dict[str, Any]
) -> None:
    accepted_plans_draw(folders, tmp_path, fields)
