"""What is read of a run is of the types that readers take; what is published names no folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import MOST_LETTERS, StoreError
from frieze.renderer.monitoring.report import report
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.run_record import published
from frieze.renderer.store.store import Store
from support.stores import rewritten

NAN, INF = float("nan"), float("inf")
RUN: dict[str, Any] = {
    "spec": {"lora": ["a=0.5"], "stages": [{"scale": 1.0, "lora": None}], "color": None, "dpi": 1},
    "outputs": {"main": "a.zarr", "live": None, "exports": [], "overwrite": False},
    "sources": {},
    "picture": {"prompt": "x", "negative_prompt": None, "stages": None, "strength": 0.5},
    "stages": [{"height": 8, "width": 8, "levels": [[1.0, 0.0, 1.0]]}],
    "guidance": {"cfg": 3.5, "embedded": None},
    "sampler": "Euler",
    "starts_from": {"init": "ab"},
    "detected": [1, 2],
    "version": "0.1",
}
# What a stranger may have written there, by how one comes to it.
FOREIGN: list[tuple[str, list[Any]]] = [
    ("spec", [7, [], "x"]),
    ("spec.lora", ["a", 7, [7], {"a": 1}]),
    ("spec.stages", [7, {}, [7], [{"lora": 7}], [{"lora_2": [None]}]]),
    ("spec.color", [7, [], {"a": 1}]),
    ("spec.intent", [None, 7, ["relative"], {}]),
    ("picture", [None, 7, []]),
    ("picture.prompt", [None, 7, ["x"]]),
    ("picture.negative_prompt", [7, {}]),
    ("picture.model", [7, ["x"]]),
    ("picture.lora", ["a", 7, [7]]),
    ("picture.stages", [7, [[]], [{"lora": "a"}]]),
    ("picture.strength", ["x", NAN, 10**400, [0.5]]),
    ("stages", [None, 7, [7], [{}], [{"height": 8, "width": 0, "levels": [[1.0]]}]]),
    ("stages.0.levels", [[], 7, [7], [["x"]], [[NAN]], [[INF]], [[10**400]]]),
    ("guidance", [None, 7, [], "x"]),
    ("guidance.cfg", [None, "7", [7], NAN, INF, 10**400]),
    ("guidance.embedded", ["7", NAN, {}]),
    ("sampler", [None, 7, []]),
    ("starts_from", [None, 7, ["init"], "init"]),
    ("sources", [None, [], {"init": 7}, {"init": {"path": "a"}}]),
    ("outputs", [7, {}, {"main": 7}]),
    ("outputs.exports", [None, "a", [7]]),
    ("detected", [7, ["x"], [0.5]]),
    ("version", [None, 7]),
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = Path(str(make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32)).path))
    rewritten(path, lambda about: about.update(run=RUN))
    return path


@pytest.mark.parametrize(("place", "values"), FOREIGN, ids=[place for place, _ in FOREIGN])
def test_a_strangers_run_is_refused_where_it_is_of_no_type_that_readers_take(
    store: Path, place: str, values: list[Any]
) -> None:
    *where, last = [int(word) if word.isdigit() else word for word in place.split(".")]

    def change(about: dict[str, Any], value: Any) -> None:
        at = about["run"] = json.loads(json.dumps(RUN))
        for key in where:
            at = at[key]
        at[last] = value

    Store.open(store)  # the control
    for value in values:
        rewritten(store, lambda about, value=value: change(about, value))
        with pytest.raises(StoreError, match=r"is damaged \(its run.json") as caught:
            Store.open(store)
        assert len(str(caught.value)) <= MOST_LETTERS
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_has_not_is_refused_wherever_it_stands(store: Path, number: str) -> None:
    rewritten(store, lambda about: about["run"].update(nobody_reads=[{"x": 123.5}]))
    file = store / "frieze" / "run.json"
    file.write_text(file.read_text().replace("123.5", number))
    with pytest.raises(StoreError, match=f"its run.json: {number} is no number of JSON"):
        Store.open(store)


def test_half_a_letter_is_told_as_what_it_is(store: Path, tmp_path: Path) -> None:
    half = {"sampler": "a\ud800b", "picture": {"prompt": "x", "seed": "\udc9b", "x": ["\udfff"]}}
    rewritten(store, lambda about: about["run"].update(half))
    about = Store.open(store).provenance
    assert about["sampler"] == "a\\ud800b"
    assert about["picture"] == {"prompt": "x", "seed": "\\udc9b", "x": ["\\udfff"]}
    for suffix in ("png", "tif", "jpg", "webp", "exr", "pdf", "zarr"):
        export(store, tmp_path / f"b.{suffix}", overwrite=False)
    report(store, tmp_path / "b.html")


@pytest.mark.parametrize("key", sorted(RUN))
def test_a_run_that_says_less_is_read(store: Path, key: str) -> None:
    rewritten(store, lambda about: about["run"].pop(key))
    assert key not in Store.open(store).run


def test_no_path_of_the_machine_is_published() -> None:
    picture = {
        "prompt": "/imagine a sun",
        "model": "/home/someone/flux",
        "init": "/home/someone/clips/a.mp4",
        "image": "clips/first.png",
        "mask": "/home/x/mask.png",
        "lora": ["/home/someone/ink.safetensors=0.8", "hub/ink"],
        "negative_prompt": None,
    }
    run = {"picture": picture, "spec": picture, "sources": {"init": {"path": "/home/someone"}}}
    assert published(run) == {
        "picture": {
            "prompt": "/imagine a sun",
            "model": "flux",
            "init": "a.mp4",
            "image": "first.png",
            "mask": "mask.png",
            "lora": ["ink.safetensors=0.8", "hub/ink"],
            "negative_prompt": None,
        }
    }
    assert "someone" in json.dumps(run), "control"
    assert published({"picture": {**picture, "model": "org/flux"}})["picture"]["model"] == (
        "org/flux"
    )
