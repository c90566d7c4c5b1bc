"""Batch files: what they may say, how values lie over each other, and that nothing escapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer import SpecError
from frieze.renderer.batches import batch_file
from frieze.renderer.batches.items import Item, read

ROOT = Path(__file__).resolve().parents[3]
SUN = {"prompt": "a red sun", "size": "64x64"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def from_text(root: Path, text: str, suffix: str = ".yaml") -> tuple[Item, ...]:
    file = root.parent / f"jobs{suffix}"
    file.write_text(text)
    return read(file, root, {"local": True})


def refused(root: Path, *listed: Any) -> str:
    with pytest.raises(SpecError) as caught:
        read(listed, root, {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_example_holds_what_it_says(root: Path) -> None:
    made = read(ROOT / "configs" / "batches" / "example.yaml", root, {"local": True})
    assert len(made) == 2 * 2 * 3 + 1
    assert made[0].name == "a-red-sun-over-blue-mountains-at-dusk-256x256-seed-0"
    assert {item.spec.num_inference_steps for item in made[:12]} == {12}
    poster = made[-1]
    assert (poster.priority, poster.workers, poster.main) == (5, None, root / "posters/poster.tif")
    assert poster.also == (root / "posters/poster.png",)
    assert (poster.spec.decoder, poster.spec.stages) == ("infgen", None)
    assert all(item.spec.local for item in made)


def test_json_lines_hold_an_item_each(root: Path) -> None:
    lines = "\n".join(json.dumps(SUN | {"seed": seed}) for seed in range(2))
    assert [item.name for item in from_text(root, f"{lines}\n\n", ".jsonl")] == [
        "a-red-sun",
        "a-red-sun-2",
    ]
    (marked,) = from_text(root, f"\ufeff{json.dumps(SUN)}\n", ".jsonl")  # as Windows writes them
    assert marked.name == "a-red-sun"
    with pytest.raises(SpecError, match="line 2 is no JSON object"):
        from_text(root, json.dumps(SUN) + "\n{", ".jsonl")


def test_the_nearer_layer_wins(root: Path) -> None:
    text = """
    defaults: {preset: demo, size: 64x64, seed: 3}
    items:
      - {prompt: far}
      - {prompt: near, height: 32, width: 48, seed: 4}
      - {prompt: own preset, preset: demo, name: third}
    """
    far, near, third = (item.spec for item in from_text(root, text))
    assert (far.height, far.width, far.seed, far.decoder) == (64, 64, 3, "infgen")
    assert (near.height, near.width, near.seed) == (32, 48, 4)
    assert (third.height, third.width, third.seed) == (1024, 1024, 3)


def test_a_matrix_names_its_items_by_what_tells_them_apart(root: Path) -> None:
    text = "matrix: {prompt: [a sun], size: [64x64, 32x64], seed: [1, 2], model: [demo]}"
    assert [item.name for item in from_text(root, text)] == [
        "64x64-seed-1",
        "64x64-seed-2",
        "32x64-seed-1",
        "32x64-seed-2",
    ]
    same = "matrix: {prompt: [A sun!, a sun.], size: [64x64]}"
    assert [item.name for item in from_text(root, same)] == ["a-sun", "a-sun-2"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sed": 1}, "unknown field 'sed'; the nearest is 'seed'"),
        ({"priorty": 1}, "unknown field 'priorty'; the nearest is 'priority'"),
        ({"local": True}, "'local' is for the whole batch: frieze batch --local"),
        ({"seed": -1}, "seed = -1"),
        ({"workers": "2..8"}, "workers = '2..8': an item takes one number"),
        ({"max_workers": 8}, "unknown field 'max_workers'; the nearest is 'workers'"),
        ({"size": "64"}, "size '64' is not WIDTHxHEIGHT"),
        ({"height": 64}, "size and height both given"),
        ({"preset": "nosuch"}, "no preset 'nosuch'"),
        ({"priority": "high"}, "priority = 'high' is no whole number"),
        ({"priority": True}, "priority = True is no whole number"),
        ({"also": 3}, "also = 3 is no list of files"),
        ({"also": ["a.png", 3]}, "also = ['a.png', 3] is no list of files"),
        (
            {"also": 3, "priority": "1"},
            "priority = '1' is no whole number; larger ones come first; ",
        ),
        ({"size": 64}, "size = 64 is not WIDTHxHEIGHT"),
        ({"name": True}, "name = True is no text"),
        ({"name": "a/b"}, "name 'a/b' does not work"),
        ({"name": ".."}, "name '..' does not work"),
        ({"name": ""}, "name '' does not work"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(root: Path, values: Any, told: str) -> None:
    assert told in refused(root, SUN, SUN | values)
    assert "item 2" in refused(root, SUN, SUN | values)


def test_an_item_needs_a_prompt_and_a_batch_an_item(root: Path) -> None:
    assert "no prompt" in refused(root, {"seed": 1})
    assert "no items" in refused(root)
    assert "is no mapping of keys" in refused(root, "a red sun")


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../a.zarr", "a/../../b.zarr", "~/a.zarr", "..", ".", "", "a\\b.zarr"),
        *("a\0.zarr", "link/a.zarr", "linked.zarr", "{name}/../../x.tif", "linked.tif"),
        *("s3://moon/a.zarr", "s3:///a.zarr"),
    ],
)
@pytest.mark.parametrize("key", ["out", "also"])
def test_no_path_leaves_the_output_folder(root: Path, path: str, key: str) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / "link").symlink_to(root.parent / "elsewhere")
    (root / "linked.zarr").symlink_to(root.parent / "elsewhere")
    told = refused(root, SUN | {key: path})
    assert "leaves the output folder" in told or "leads out of" in told


def test_a_link_inside_the_folder_leads_nowhere_else(root: Path) -> None:
    (root / "suns").mkdir()
    (root / "link").symlink_to("suns")
    (made,) = read([SUN | {"out": "link/a.zarr"}], root, {})
    assert made.main == root / "link/a.zarr"


@pytest.mark.parametrize(
    "out",
    [
        *("frieze/a.zarr", "frieze", "report.json", "contact.png"),
        *("link/frieze/a.zarr", "link/contact.png", "own.png"),
    ],
)
def test_the_batchs_own_files_are_no_outputs(root: Path, out: str) -> None:
    (root / "link").symlink_to(".")
    (root / "own.png").symlink_to("contact.png")
    assert "the batch's own file" in refused(root, SUN | {"out": out})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"out": "a.zarr"}, {"out": "a.zarr"}),
        ({"out": "a.zarr"}, {"out": "a.tif"}),  # both have the store a.zarr
        ({"out": "a.tif", "also": "b.png"}, {"out": "b.png"}),
        ({"out": "a.zarr"}, {"out": "a.zarr/b.zarr"}),
        ({"out": "a.zarr/b.zarr"}, {"out": "a.zarr"}),
        ({"out": "x/./a.zarr"}, {"out": "x/a.zarr"}),
        ({"out": "suns/a.zarr"}, {"out": "link/a.zarr"}),
        ({"out": "link/a.png"}, {"out": "b.zarr", "also": ["suns/a.png"]}),
        ({"out": "suns/a.zarr"}, {"out": "link/a.zarr/b.tif"}),
        ({"out": "deep/a.zarr"}, {"out": "suns/a.tif"}),
    ],
)
def test_outputs_that_meet_are_refused(root: Path, one: Any, other: Any) -> None:
    (root / "suns").mkdir()
    (root / "link").symlink_to("suns")
    (root / "deep").symlink_to(root / "link")
    read([SUN | {"out": "suns/a.zarr"}, SUN | {"out": "link/b.zarr"}], root, {})  # control
    told = refused(root, SUN | {"name": "one"} | one, SUN | {"name": "two"} | other)
    assert "'one'" in told
    assert "'two'" in told


def test_a_file_is_not_written_twice_and_a_name_is_one_items(root: Path) -> None:
    (root / "link").symlink_to(".")
    for also in ("a.tif", "link/a.tif", "a.zarr", "link/a.zarr"):
        assert "twice" in refused(root, SUN | {"out": "a.tif", "also": [also]})
    assert "twice" in refused(root, SUN | {"also": ["b.png", "link/b.png"]})
    told = refused(root, SUN | {"name": "a"}, SUN | {"name": "a", "out": "b.zarr"})
    assert "name 'a' is another item's" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("defaluts: {}", "unknown section 'defaluts'; the nearest is 'defaults'"),
        ("just words", "holds str; a list of items works"),
        ("matrix: {seed: 3, prompt: [a]}", "matrix seed = 3 is no list"),
        ("matrix: {seed: []}", "matrix seed = [] is no list"),
        ("matrix: [1]", "matrix is list; a mapping of keys works"),
        ("items: {prompt: a}", "items is dict; a list works"),
        ("items: a\ndefaults: b", "defaults is str; a mapping of keys works; items is str"),
        ("[{prompt: a", "is not YAML"),
        ("defaults: {sed: 1}\nitems: [{prompt: a}]", "unknown field 'sed'"),
    ],
)
def test_a_file_of_another_shape_is_refused(root: Path, text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_text(root, text)
    assert told in str(caught.value)


def test_empty_sections_and_names_that_are_numbers_work(root: Path) -> None:
    (made,) = from_text(root, "defaults:\nmatrix:\nitems: [{prompt: a, name: 3, also: a.png}]")
    assert (made.name, made.also) == ("3", (root / "a.png",))


def test_a_preset_that_names_a_preset_is_refused(root: Path) -> None:
    file = root.parent / "mine.yaml"
    file.write_text("preset: demo")
    assert "unknown field 'preset'" in refused(root, SUN | {"preset": str(file)})


def test_only_known_files_are_read(root: Path) -> None:
    with pytest.raises(SpecError, match=r"is no batch: a file ends in \.yaml"):
        from_text(root, "[]", ".txt")
    with pytest.raises(SpecError, match="cannot be read"):
        read(root / "nosuch.yaml", root, {})


def test_a_matrix_without_end_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_file, "MOST", 3)
    with pytest.raises(SpecError, match="4 items; a batch holds 3"):
        from_text(root, "matrix: {prompt: [a], seed: [1, 2, 3, 4, 5]}")


def test_the_digest_tells_pictures_apart_and_not_their_workers(root: Path) -> None:
    def digest(**values: Any) -> str:
        return read([SUN | {"name": "a"} | values], root, {})[0].digest

    assert digest() == digest(workers=2) == digest(priority=3)
    assert len({digest(), digest(seed=1), digest(also="a.png"), digest(out="b.zarr")}) == 4
