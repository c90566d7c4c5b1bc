"""Batches of real renders: the same bytes as single ones, whatever fails, stops or is killed."""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from frieze.cluster.fleet import Fleet, FleetError, SoloFleet
from frieze.renderer import (
    ItemEvent,
    ItemResult,
    PlanError,
    RenderCancelledError,
    RenderSpec,
    SpecError,
    batch,
    render,
)
from frieze.renderer.batches import batch as batches
from frieze.renderer.batches import warm_workers
from frieze.renderer.driver import workers
from frieze.renderer.families import flux
from frieze.renderer.worker import model_cache
from frieze.renderer.worker.shard import Shard
from support.command_line import MAIN, frieze, refused
from support.drawing import PROMPT, pixels
from support.forkserver import Program

Values = dict[str, Any]
SMALL: Values = {"prompt": PROMPT, "height": 64, "width": 64, "num_inference_steps": 2}
CASCADE: Values = {
    "method": "pi",
    "stages": [{"scale": 0.5, "steps": 2}, {"start": 0.5, "steps": 2}],
}
# Two sizes, two prompts, a cascade on two workers, a further file.
ITEMS: list[Values] = [
    {**SMALL, "name": "plain"},
    {**SMALL, "name": "seeded", "seed": 3},
    {**SMALL, "name": "moon", "prompt": "a pale moon", "width": 96, "also": "{name}.png"},
    {**SMALL, **CASCADE, "name": "wide", "height": 128, "width": 128, "workers": 2},
]


def single(values: Values, out: Path, **more: Any) -> np.ndarray:
    """What a render of the same spec draws."""
    spec = {key: value for key, value in values.items() if key not in ("name", "also")}
    render(RenderSpec(**{"local": True, **spec, **more}, out=str(out)))
    return pixels(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("alone")
    return {v["name"]: single(v, folder / f"{v['name']}.zarr") for v in ITEMS}


def drawn(items: list[Values], out: Path, **options: Any) -> dict[str, ItemResult]:
    return {r.name: r for r in batch(items, out=out, **{"local": True, "workers": 2, **options})}


def report(out: Path) -> dict[str, Any]:
    told = json.loads((out / "report.json").read_text())
    return told | {"items": {item["name"]: item for item in told["items"]}}


def test_each_item_has_the_bytes_of_a_single_render_and_weights_are_loaded_once(
    tmp_path: Path, alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = flux.load
    monkeypatch.setattr(flux, "load", lambda *a: loads.append("model") or load(*a))
    model_cache.clear()
    results = drawn(ITEMS, tmp_path)
    assert {result.state for result in results.values()} == {"done"}
    for name, expected in alone.items():
        assert np.array_equal(pixels(tmp_path / f"{name}.zarr"), expected), name
    assert not np.array_equal(alone["plain"], alone["seeded"])  # control
    assert loads == ["model"]
    assert results["moon"].outputs == (tmp_path / "moon.zarr", tmp_path / "moon.png")
    assert all(path.exists() for result in results.values() for path in result.outputs)
    assert (tmp_path / "contact.png").is_file()
    assert report(tmp_path)["totals"]["done"] == len(ITEMS)


def test_impossible_items_fail_in_one_line_and_the_rest_is_drawn(
    tmp_path: Path, alone: dict[str, np.ndarray]
) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    bad = [
        {**SMALL, "name": "odd", "height": 33},
        {**SMALL, "name": "gone", "model": str(tmp_path / "nosuch")},
        {**SMALL, "name": "many", "workers": 3},
    ]
    listed = [*bad, ITEMS[0], {**SMALL, "name": "taken", "also": "taken.png"}]
    jobs.write_text("\n".join(json.dumps(values) for values in listed))
    out.mkdir()
    (out / "taken.png").write_text("somebody's")
    shown = frieze("batch", str(jobs), "--out", str(out), "--local", "--workers", "2")
    assert shown.exit_code == 1, shown.output
    assert "4 of 5 items failed" in shown.stderr
    assert shown.stdout.splitlines() == [str(out / "report.json"), str(out / "contact.png")]
    errors = {name: item["error"] for name, item in report(out)["items"].items()}
    assert errors.pop("plain") is None
    assert "no multiple of 16" in errors["odd"]
    assert "nosuch" in errors["gone"]
    assert "more than the 2 of the batch" in errors["many"]
    assert "already there" in errors["taken"]
    assert not any("\n" in error for error in errors.values())
    assert np.array_equal(pixels(out / "plain.zarr"), alone["plain"])
    assert (out / "taken.png").read_text() == "somebody's"
    assert not (out / "taken.zarr").exists()


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ([{**SMALL, "height": 33}], "no multiple of 16"),
        ([SMALL, {**SMALL, "sed": 1}], "the nearest is 'seed'"),
        ([{**SMALL, "out": "../a.zarr"}], "leaves the output folder"),
        ([{**SMALL, "out": "a.zarr"}, {**SMALL, "out": "a.tif"}], "both write a.zarr"),
    ],
)
def test_a_useless_file_is_bad_input_and_nothing_is_written(
    tmp_path: Path, listed: list[Values], told: str
) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs.write_text("\n".join(map(json.dumps, listed)))
    refused(frieze("batch", str(jobs), "--out", str(out), "--local"), told)
    assert not out.exists()


def test_a_batch_takes_one_number_of_workers(tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs.write_text(json.dumps(SMALL))
    told = frieze("batch", str(jobs), "--out", str(out), "--workers", "2..4")
    refused(told, "workers '2..4': a batch takes one number")


def test_a_batch_is_lazy_and_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown field"):
        batch([{**SMALL, "sed": 1}], out=tmp_path / "out", local=True)
    with pytest.raises(PlanError, match="none of the 2 items"):
        batch([{**SMALL, "height": 33}] * 2, out=tmp_path / "out", local=True)
    results = batch(
        [{**SMALL, "seed": seed} for seed in range(3)], out=tmp_path / "out", local=True
    )
    assert not (tmp_path / "out").exists()
    first = next(results)
    assert (first.state, first.path.exists()) == ("done", True)
    results.close()
    totals = report(tmp_path / "out")["totals"]
    assert (totals["done"], totals["queued"], totals["items"]) == (1, 2, 3)


def test_a_stopped_batch_says_how_to_go_on_and_does(
    tmp_path: Path, alone: dict[str, np.ndarray]
) -> None:
    cancel, again = threading.Event(), Counter[str]()

    told: list[ItemEvent] = []

    def stop(event: ItemEvent) -> None:
        told.append(event)
        if event.name == "wide" and event.event and event.event.kind == "step":
            cancel.set()

    results = batch(ITEMS, out=tmp_path, local=True, workers=2, on_event=stop, cancel=cancel)
    seen = []
    with pytest.raises(RenderCancelledError, match="3 of 4 items are done; go on with"):
        seen.extend(result.name for result in results)
    assert seen == ["plain", "seeded", "moon"]
    assert report(tmp_path)["items"]["wide"]["state"] == "queued"
    # From the first measured step on a batch tells what is left of itself, beside each item's own.
    steps = [event for event in told if event.event and event.event.kind == "step"]
    assert all(event.left and event.event.facts["left"] > 0 for event in steps if event.event)
    assert all(event.left and event.left.seconds > 0 for event in told[told.index(steps[0]) :])

    def count(event: ItemEvent) -> None:
        again[event.name] += event.event is not None and event.event.kind == "step"

    rest = drawn(ITEMS, tmp_path, continued=True, on_event=count)
    assert list(rest) == ["wide"]
    assert +again == {"wide": 3}  # of four steps one was done
    for name, expected in alone.items():
        assert np.array_equal(pixels(tmp_path / f"{name}.zarr"), expected), name


def test_what_breaks_is_tried_again_and_the_rest_goes_on(
    tmp_path: Path, alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Counter({3: 1, 0: 99})  # how often items of a seed break
    step = Shard.step

    def breaks(self: Shard, index: int, *rest: Any) -> object:
        if index == 1 and left[self.plan.spec.seed] > 0:
            left[self.plan.spec.seed] -= 1
            raise RuntimeError("out of memory")
        return step(self, index, *rest)

    monkeypatch.setattr(Shard, "step", breaks)
    results = drawn([ITEMS[0], ITEMS[1]], tmp_path, retries=2)
    monkeypatch.undo()
    assert (results["seeded"].state, results["seeded"].retries) == ("done", 1)
    assert (results["plain"].state, results["plain"].retries) == ("failed", 2)
    assert results["plain"].error == "RuntimeError: out of memory"
    assert np.array_equal(pixels(tmp_path / "seeded.zarr"), alone["seeded"])
    assert drawn([ITEMS[0], ITEMS[1]], tmp_path, continued=True)["plain"].state == "done"
    assert np.array_equal(pixels(tmp_path / "plain.zarr"), alone["plain"])


def test_an_error_that_nobody_expected_ends_one_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Shard.begin

    def breaks(self: Shard, *args: Any) -> Any:
        if self.plan.spec.seed == 3:
            raise ZeroDivisionError("in foreign code")
        return begin(self, *args)

    monkeypatch.setattr(Shard, "begin", breaks)
    results = drawn([ITEMS[1], ITEMS[0]], tmp_path, retries=0)
    assert results["seeded"].error == "ZeroDivisionError: in foreign code"
    assert results["plain"].state == "done"
    journal = (tmp_path / "frieze" / "journal.jsonl").read_text()
    assert "Traceback" in journal


def test_a_killed_batch_goes_on_and_what_is_done_stays(
    tmp_path: Path, alone: dict[str, np.ndarray]
) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "out"
    jobs.write_text(json.dumps(ITEMS))
    words = ("batch", str(jobs), "--out", str(out), "--local", "--workers", "2", "--json")

    process = Program(MAIN, *words)
    for line in process.stdout:
        told = json.loads(line)
        if (told["event"], told["item"], told.get("stage")) == ("step", "wide", 1):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    stamps = {path: path.stat().st_mtime_ns for path in (out / "plain.zarr").rglob("*")}
    refused(frieze(*words[:-1]), "holds a batch already")
    shown = frieze(*words[:-1], "--continue")
    assert shown.exit_code == 0, shown.output
    assert "[4/4] wide: done" in shown.stderr
    assert "plain" not in shown.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    for name, expected in alone.items():
        assert np.array_equal(pixels(out / f"{name}.zarr"), expected), name


@pytest.fixture
def _threads_for_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a batch does on Ray, with workers that are threads of this process."""
    monkeypatch.setattr(batches, "session", SimpleNamespace(session=lambda *_: nullcontext()))
    monkeypatch.setattr(batches, "check_room", lambda plan: None)
    monkeypatch.setattr(
        warm_workers, "on_actors", lambda worker, spec, beside: SoloFleet.launch(worker)
    )
    monkeypatch.setattr(
        warm_workers,
        "launch",
        lambda plan, targets, ray, beside: workers.launch(plan, targets, ray=False),
    )


@pytest.mark.parametrize(
    "where",
    [
        "_threads_for_actors",
        pytest.param("ray_cluster", marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_side_by_side_on_workers_that_stay_though_one_never_comes(
    tmp_path: Path,
    alone: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    where: str,
) -> None:
    request.getfixturevalue(where)
    launch, turns = warm_workers.launch, itertools.count()

    def launched(*args: Any, **options: Any) -> Fleet:
        if next(turns) == 0:
            raise FleetError("1 workers did not fit on the cluster")
        return launch(*args, **options)

    monkeypatch.setattr(warm_workers, "launch", launched)
    more = [{**SMALL, "name": f"seed-{seed}", "seed": seed} for seed in (10, 11)]
    places: dict[str, tuple[str, str]] = {}  # who draws an item: a lane, and a process

    def listen(event: ItemEvent) -> None:
        if event.event and "pid" in event.event.message and event.event.kind != "plan":
            places[event.name] = threading.current_thread().name, event.event.message

    results = drawn([*ITEMS[:3], *more], tmp_path, local=False, workers=3, on_event=listen)
    assert [result.error for result in results.values()] == [None] * 5
    for name in ("plain", "seeded", "moon"):
        assert np.array_equal(pixels(tmp_path / f"{name}.zarr"), alone[name]), name
    assert len(places) == 5
    lanes, processes = map(set, zip(*places.values(), strict=True))
    assert len(lanes) == 2  # five items, two workers of three
    assert len(processes) == (2 if where == "ray_cluster" else 1)


def test_without_any_worker_the_items_fail_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launched(*args: Any, **options: Any) -> Fleet:
        raise FleetError("1 workers did not fit on the cluster")

    monkeypatch.setattr(warm_workers, "launch", launched)
    results = drawn(ITEMS[:2], tmp_path)
    assert [r.error for r in results.values()] == ["1 workers did not fit on the cluster"] * 2
    assert not (tmp_path / "plain.zarr").exists()


@pytest.mark.ray
def test_what_a_cluster_has_no_room_for_is_told_before_a_prompt_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: int
) -> None:
    encoded: list[object] = []

    def encode(*asked: object, **more: object) -> None:
        encoded.append(asked)
        raise FleetError("it got as far as the prompts")

    monkeypatch.setattr(workers, "run_isolated", encode)
    monkeypatch.setattr(warm_workers, "run_isolated", encode)
    many: Values = {**SMALL, "workers": ray_cluster + 1, "height": 16 * (ray_cluster + 1)}
    told = rf"{ray_cluster + 1} workers of 1 CPU each did not fit .* within 0.5 s: it has"
    with pytest.raises(PlanError, match=told):
        render(RenderSpec(**{**many, "wait": 0.5}, out=str(tmp_path / "a.zarr")))
    assert not list(tmp_path.iterdir())
    found = drawn([many], tmp_path / "many", local=False, workers=ray_cluster + 1, wait=0.5)
    (result,) = found.values()
    assert result.state == "failed"
    assert re.search(told, result.error or "")
    assert encoded == []
    with pytest.raises(PlanError, match="as far as the prompts"):  # control: with room
        render(RenderSpec(**{**SMALL, "workers": 2}, out=str(tmp_path / "a.zarr")))
    assert len(encoded) == 1


@pytest.mark.slow
@pytest.mark.ray
def test_the_worker_that_encoded_the_prompts_goes_on_to_draw(
    tmp_path: Path, alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, ray_cluster: int
) -> None:
    launch, launched = warm_workers.launch, list[object]()

    def counted(*args: Any, **options: Any) -> Fleet:
        launched.append(args)
        return launch(*args, **options)

    def another(*args: Any, **options: Any) -> None:
        raise FleetError("a process for the prompts alone")

    monkeypatch.setattr(warm_workers, "launch", counted)
    monkeypatch.setattr(warm_workers, "run_isolated", another)
    results = drawn(ITEMS[:2], tmp_path / "two", local=False, workers=2)
    assert [result.error for result in results.values()] == [None] * 2
    assert len(launched) == 1, "of two lanes only one starts a worker for itself"
    for name in ("plain", "seeded"):
        assert np.array_equal(pixels(tmp_path / "two" / f"{name}.zarr"), alone[name]), name
    (wide,) = drawn(ITEMS[3:], tmp_path / "wide", local=False, workers=2).values()
    assert "a process for the prompts alone" in (wide.error or ""), "control: of one cut in two"
