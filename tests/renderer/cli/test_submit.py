"""`frieze submit` before anything is sent: its words, what goes along, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer.cli import submit
from frieze.renderer.cli.job_files import PACKAGES, files_of, local_files, packed
from frieze.renderer.errors import SpecError
from frieze.renderer.spec.render_spec import RenderSpec
from support.command_line import frieze, refused

ROOT = Path(__file__).resolve().parents[3]
RENDER = {"preset": None, "prompt": "a sun", "size": None, "also": None}
RENDER |= {"continued": False, "dry_run": False, "json": False, "quiet": False}
HEAD = ("submit", "--address", "http://127.0.0.1:1")


def test_a_render_is_sent_so_that_it_finishes_its_own_store() -> None:
    words = ["render", "a sun", "--out", "/nfs/a.tif"]
    request = submit.render_request(words, {**RENDER, "out": "/nfs/a.tif"})
    assert request.words == (*words, "--continue")
    assert (request.store, request.title) == ("/nfs/a.zarr", "a sun")
    request = submit.render_request(
        words, {**RENDER, "out": "s3://bucket/a.zarr", "overwrite": True}
    )
    assert (request.words, request.store) == (tuple(words), "s3://bucket/a.zarr")


def test_an_upscale_takes_its_picture_and_its_decoder_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_text("a")
    (tmp_path / "own").mkdir()
    given = {"picture": "a.png", "size": "512x512", "enlarger": "infgen", "decoder": "own"}
    given |= {"also": None, "continued": False, "dry_run": False, "address": None}
    words = ["upscale", "a.png", "--size", "512x512", "--decoder", "own", "--out", "/nfs/a.tif"]
    request = submit.upscale_request(words, {**given, "out": "/nfs/a.tif"})
    assert request.words == (*words, "--continue")
    assert (request.store, request.files) == ("/nfs/a.zarr", ("a.png", "own"))
    request = submit.upscale_request(words, {**given, "out": "/nfs/a.tif", "decoder": None})
    assert request.files == ("a.png",)
    with pytest.raises(SpecError, match=r"PICTURE b\.png is not here"):
        submit.upscale_request(words, {**given, "out": "/nfs/a.tif", "picture": "b.png"})


def test_a_resume_is_sent_as_it_is() -> None:
    given = {"store": "/nfs/a.zarr", "also": None, "address": None}
    request = submit.resume_request(["resume", "/nfs/a.zarr"], given)
    assert (request.words, request.store) == (("resume", "/nfs/a.zarr"), "/nfs/a.zarr")


def test_a_batch_goes_on_with_its_own_folder() -> None:
    given = {"jobs": "/nfs/a.yaml", "out": "/nfs/a", "continued": False, "address": None}
    request = submit.batch_request(["batch", "/nfs/a.yaml", "--out", "/nfs/a"], given)
    assert request.words == ("batch", "/nfs/a.yaml", "--out", "/nfs/a", "--continue")
    assert (request.store, request.files) == ("/nfs/a", ())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("COMMAND",)),
        (("--", "doctor"), ("'doctor'", "render or upscale or resume or batch")),
        (("--", "render", "x", "--sizee", "1"), ("--sizee", "--size")),
        (("--", "render", "x", "--workers", "none"), ("workers", "none")),
        (("--", "render", "x"), ("--out picture.zarr", "every node sees")),
        (("--", "render", "x", "--out", "/a.zarr", "--also", "a.png"), ("--also a.png",)),
        (("--", "render", "x", "--out", "/a.zarr", "--address", "h:6379"), ("before the --",)),
        (
            ("--", "render", "x", "--out", "/a.zarr", "--init", "a.png"),
            ("--init a.png", "not here"),
        ),
        (("--", "render", "x", "--out", "/a.zarr", "--init", "../a.png"), ("none above",)),
        (("--", "render", "x", "--out", "/a.zarr", "--lora", "a=0.5"), ("--lora a ", "not here")),
        (("--", "render", "x", "--out", "/a.zarr", "--model", "./m"), ("--model ./m", "not here")),
        (
            ("--", "render", "x", "--out", "/a.zarr", "--sign", "/c.pem", "c.key"),
            ("--sign c.key", "absolute path on storage that every node sees"),
        ),
        (("--", "batch", "a.yaml"), ("--out is missing",)),
        (("--", "batch", "a.yaml", "--out", "/nfs/a"), ("JOBS a.yaml", "not here")),
        (("--", "resume", "a.zarr"), ("STORE a.zarr", "every node sees")),
        (("--env", "1=2", "--", "render", "x", "--out", "/a.zarr"), ("--env '1'", "NAME=VALUE")),
        (("--metadata", "x", "--", "render", "x", "--out", "/a.zarr"), ("--metadata 'x'",)),
        (("--submission-id", "../x", "--", "render", "x", "--out", "/a.zarr"), ("'../x'",)),
        (
            ("--entrypoint-num-cpus", "-1", "--", "render", "x"),
            ("entrypoint-num-cpus", "equal to 0"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_no_job_could_do_is_refused_before_the_cluster_is_asked(
    words: tuple[str, ...],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(frieze(*HEAD, *words), *parts)
    assert list(tmp_path.iterdir()) == []


def test_control_the_same_words_made_whole_do_ask_the_cluster() -> None:
    refused(frieze(*HEAD, "--", "render", "x", "--out", "/a.zarr"), "no Ray dashboard")


def test_files_of_this_folder_go_along_and_absolute_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "b.safetensors", "mine.yaml", "m/x/y.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    spec = RenderSpec(init="in/a.png", lora=("b.safetensors=0.5", "/nfs/c=1"), model="m")
    files = local_files(files_of(spec, "mine.yaml"))
    assert files == ("mine.yaml", "in/a.png", "b.safetensors", "m")
    with packed(files) as parcel:
        assert parcel.folder is not None
        found = {str(p.relative_to(parcel.folder)) for p in parcel.folder.rglob("*") if p.is_file()}
        assert found == {"mine.yaml", "in/a.png", "b.safetensors", "m/x/y.json"}
    assert not parcel.folder.exists()


@pytest.mark.parametrize("suffix", [".yaml", ".jsonl"])
def test_files_that_a_batchs_items_name_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "mine.yaml").write_text("num_inference_steps: 3\n")
    for name in ("in/a.png", "b.safetensors", "c.safetensors", "other.png"):
        (tmp_path / name).write_text(name)
    first = {"prompt": "x", "init": "in/a.png", "lora": ["b.safetensors=0.5", "/nfs/d=1"]}
    listed = [first, {"prompt": "y", "preset": "mine.yaml", "lora_2": ["c.safetensors"]}, first]
    jobs = f"jobs{suffix}"
    text = (
        json.dumps({"items": listed}) if suffix == ".yaml" else "\n".join(map(json.dumps, listed))
    )
    (tmp_path / jobs).write_text(text)
    given = {"jobs": jobs, "out": "s3://bucket/a", "continued": False, "address": None}
    request = submit.batch_request(["batch", jobs, "--out", "s3://bucket/a"], given)
    assert request.files == (jobs, "mine.yaml", "in/a.png", "b.safetensors", "c.safetensors")
    assert (request.store, request.words[-1]) == ("s3://bucket/a", "--continue")
    far = submit.batch_request([], {**given, "jobs": str(tmp_path / jobs)})
    assert far.files == request.files[1:], "the file itself is where every node sees it"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"init": "a.png"}, ("sun: --init a.png is not here", "absolute path")),
        ({"edit": ["a.png=a moon"]}, ("sun: --edit a.png is not here", "absolute path")),
        ({"lora": ["../a.safetensors"]}, ("sun: --lora ../a.safetensors", "none above")),
        ({"model": "./m"}, ("sun: --model ./m is not here",)),
        ({"preset": "m.yaml"}, ("no preset 'm.yaml'",)),
        ({"sed": 1}, ("item 1 (sun)", "the nearest is 'seed'")),
        ({"out": "../a.zarr"}, ("leaves the output folder",)),
        ({"init": "large.png"}, ("large.png, a.jsonl: 1024 MiB is more than the 512 MiB",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_batch_that_no_job_could_draw_is_refused_before_the_cluster_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], parts: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**30)
    jobs = tmp_path / "a.jsonl"
    words = (*HEAD, "--", "batch", "a.jsonl", "--out", "s3://bucket/a")
    jobs.write_text(json.dumps({"prompt": "x", "name": "sun", **values}))
    refused(frieze(*words), *parts)
    jobs.write_text(json.dumps({"prompt": "x", "name": "sun"}))
    refused(frieze(*words), "no Ray dashboard")


def test_a_variable_without_a_name_is_told_without_its_value() -> None:
    shown = frieze(*HEAD, "--env", "=hunter2", "--", "render", "x", "--out", "/a.zarr")
    refused(shown, "NAME=VALUE")
    assert "hunter2" not in shown.output


def test_a_file_of_many_items_counts_once_and_the_largest_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate((number + 1) * 2**27)
    assert local_files([("--init", "0")] * 9) == ("0",)
    with pytest.raises(SpecError, match=r"^4, 3, 2 and 2 more: 1920 MiB"):
        local_files([("--init", f"{number}") for number in range(5)])


def test_more_than_a_job_may_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(SpecError, match=r"a\.png: 1024 MiB is more than the 512 MiB"):
        local_files([("--init", "a.png")])


def test_the_code_that_goes_along_runs_by_itself_and_knows_its_version(tmp_path: Path) -> None:
    with packed(()) as parcel:
        assert parcel.folder is None
        code, about = parcel.modules
        assert {path.name for path in code.iterdir()} == set(PACKAGES)
        sources = {p.relative_to(ROOT) for f in PACKAGES for p in (ROOT / f).rglob("*.py")}
        assert {p.relative_to(code) for p in code.rglob("*.py")} == sources
        assert (code / "renderer" / "demo" / "checkpoint" / "model_index.json").is_file()
        assert about.parent == code.parent
        ask = "import frieze.renderer as r, importlib.metadata as m; "
        ask += "print(r.__file__, m.version('frieze'), m.distribution('frieze')._path)"
        run = subprocess.run(
            [sys.executable, "-c", ask],
            env={"PYTHONPATH": str(code.parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        file, version, found = run.stdout.split()
    assert Path(file).is_relative_to(code)
    assert Path(found) == about
    assert about.name == f"frieze-{version}.dist-info"
