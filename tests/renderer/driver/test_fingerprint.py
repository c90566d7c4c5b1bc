"""Fingerprints: of all weights, wherever they lie, and of nothing that is another worker's rows."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieze.renderer.checkpoints.checkpoint import find
from frieze.renderer.checkpoints.scheduler_config import SOLVER_OF
from frieze.renderer.driver import workers as launching
from frieze.renderer.driver.fingerprint import (
    fingerprint,
    identity,
    run_record,
    texts_digest,
    weights_digest,
)
from frieze.renderer.driver.store_arrays import store_layout
from frieze.renderer.driver.workers import replanned
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.sampling.noise_levels import NoiseSchedule
from frieze.renderer.sampling.schedule_table import CALLED, sampler
from support.drawing import small_spec

# ---- weights


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "scheduler"])
def test_weights_behind_links_are_in_the_digest(tmp_path: Path, part: str) -> None:
    """A component folder that is a link, and files that are, as in a hub's snapshot."""
    whole = Path(shutil.copytree(find("demo"), tmp_path / "whole"))
    linked = Path(shutil.copytree(whole, tmp_path / "linked"))
    shutil.move(linked / part, tmp_path / "elsewhere")
    (linked / part).symlink_to(tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").iterdir():
        shutil.move(file, tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    (linked / "round").symlink_to(linked)  # a circle ends
    assert weights_digest(linked) == weights_digest(whole)
    file = next(
        p for p in sorted((linked / part).iterdir()) if p.suffix in (".safetensors", ".json")
    )
    file.resolve().write_bytes(file.read_bytes() + b" ")
    assert weights_digest(linked) != weights_digest(whole)


def test_what_tokenizers_read_is_in_the_digest(tmp_path: Path) -> None:
    model = Path(shutil.copytree(find("demo"), tmp_path / "model"))
    (model / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    before, weights = texts_digest(model), weights_digest(model)
    (model / "tokenizer" / "merges.txt").write_text("#version: 0.2\nr e\n")
    assert texts_digest(model) != before
    assert weights_digest(model) == weights


def test_a_store_from_before_a_fact_was_kept_is_compared_without_it(tmp_path: Path) -> None:
    made = plan(small_spec(tmp_path / "a.zarr"))
    now = identity(made)
    before = {name: value for name, value in now.items() if name != "texts"}
    assert fingerprint(identity(made, before)) == fingerprint(before)
    assert fingerprint(identity(made, now)) == fingerprint(now) != fingerprint(before)


def test_a_field_that_came_later_counts_where_it_is_not_as_it_was_before(tmp_path: Path) -> None:
    made = plan(small_spec(tmp_path / "a.zarr"))
    assert "strategy" not in identity(made)["picture"]
    other = dataclasses.replace(made, spec=made.spec.model_copy(update={"strategy": "tiles"}))
    assert identity(other)["picture"]["strategy"] == "tiles"
    assert fingerprint(identity(other)) != fingerprint(identity(made))


# ---- what drew it


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "Euler"),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "Euler a"),
        ({"_class_name": "PNDMScheduler"}, "PLMS"),
        ({"_class_name": "UniPCMultistepScheduler"}, "UniPC"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
            "DPM++ 2M Karras",
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "DPM++ 2M SDE",
        ),
    ],
)
def test_the_sampler_is_called_as_galleries_call_it(options: dict[str, Any], name: str) -> None:
    assert sampler(NoiseSchedule("", False, "epsilon", options)) == name
    assert set(SOLVER_OF) == {*CALLED, "DPMSolverMultistepScheduler"}


def test_the_scales_in_use_are_kept(tmp_path: Path) -> None:
    told = {"negative_prompt": "grey", "true_cfg_scale": 2.0}
    for fields, cfg in (({}, 1.0), (told, 2.0)):
        made = plan(small_spec(tmp_path / "a.zarr", **fields))
        record = run_record(made, SimpleNamespace(record=dict), {})
        assert (record["sampler"], record["guidance"]["cfg"]) == ("Euler", cfg)
        assert record["guidance"]["embedded"] == made.guidance.embedded


# ---- another number of workers

METHODS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "auto": {},
    "pi": {"method": "pi"},
    "detect": {"method": "rdfc", "method_options": {"mode": "detect"}},
    "ultraimage": {"method": "ultraimage"},
}


def values(record: Any, *left_out: str) -> Any:
    """A record's values, and those of records in it; functions, as None."""
    if not dataclasses.is_dataclass(record):
        return None if callable(record) else record
    names = (field.name for field in dataclasses.fields(record))
    return {name: values(getattr(record, name)) for name in names if name not in left_out}


def fixed(made: CanvasPlan) -> dict[str, Any]:
    """All of a plan but who draws which rows."""
    about = values(made, "spec", "stages", "mesh")
    return about | {
        "spec": made.spec.model_dump(exclude={"workers", "guidance_ranks", "ulysses"}),
        "stages": [values(stage, "bands", "shares") for stage in made.stages],
        "arrays": made.arrays,
        "layout": store_layout(made),
        "identity": identity(made),
    }


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(METHODS)),
    height=st.sampled_from([256, 384, 512]),
    chunk=st.sampled_from([None, 32]),
    detected=st.sampled_from([None, (2,), (1, 3)]),
    workers=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_planning_for_other_workers_changes_who_draws_which_rows_and_nothing_else(
    name: str,
    height: int,
    chunk: int | None,
    detected: tuple[int, ...] | None,
    workers: tuple[int, int],
) -> None:
    spec = small_spec("a.zarr", height=height, chunk=chunk, workers=workers[0], **METHODS[name])
    made = plan(spec, detected=detected if name == "detect" else None)
    other = replanned(made, workers[1])
    assert fixed(other) == fixed(made)
    for stage in other.stages:
        assert len(stage.shares) == workers[1]
        assert (stage.shares[0].start, stage.shares[-1].stop) == (0, stage.canvas.height)


def test_control_a_plan_that_forgets_what_was_detected_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = plan(small_spec("a.zarr", workers=2, height=512, **METHODS["detect"]), detected=(2,))
    monkeypatch.setattr(
        launching, "plan", lambda spec, detected, **more: plan(spec, detected=None, **more)
    )
    assert fixed(replanned(made, 3)) != fixed(made)
