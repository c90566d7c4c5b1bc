"""A store from elsewhere: it is finished, writes nowhere else and calls on nobody unasked."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from frieze.renderer import Event, render
from frieze.renderer.checkpoints.checkpoint import find
from frieze.renderer.driver import spec_origin
from frieze.renderer.errors import ExportError, MediaError, SpecError
from frieze.renderer.monitoring import commands
from frieze.renderer.spec.render_spec import RenderSpec
from support.command_line import frieze, refused
from support.drawing import DRAW, pixels, small_spec, stop_after
from support.stores import rewritten

pytestmark = pytest.mark.usefixtures("kept_encoders")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store stopped after its second step, and a file recorded beside it."""
    folder = tmp_path_factory.mktemp("begun")
    spec = small_spec(folder / "a.zarr", height=64, width=64)
    stop_after(spec, step=2, exports=(folder / "a.png",))
    return folder


def test_a_strangers_store_is_finished_and_touches_nothing_else(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another file's tests may have left this process connected to a Ray, which then is used.
    monkeypatch.setattr(spec_origin.session, "is_connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here, home = tmp_path / "here", tmp_path / "home"
    shutil.copytree(begun, here)
    home.mkdir()
    for file in (home / "letters.tif", home / "letters.tif.part", here / "family.png"):
        file.write_text("years")

    def change(about: dict[str, Any]) -> None:
        about["run"]["outputs"] |= {
            "overwrite": True,
            "exports": [str(home / "letters.tif"), "../home/letters.tif", "family.png", "a.png"],
        }
        about["run"]["spec"] |= {"address": "203.0.113.7:6379", "local": False, "workers": 2}

    rewritten(here / "a.zarr", change)
    refused(frieze("resume", str(here / "a.zarr")), "203.0.113.7:6379", "--address", "--local")
    shown = frieze("resume", str(here / "a.zarr"), "--local", "--workers", "1")
    assert shown.exit_code == 0, shown.output
    assert "letters.tif is elsewhere" in shown.stderr
    assert "family.png is there and stays; --overwrite replaces it" in shown.stderr
    assert {file.name: file.read_text() for file in home.iterdir()} == {
        "letters.tif": "years",
        "letters.tif.part": "years",
    }
    assert (here / "family.png").read_text() == "years"
    assert (here / "a.png").is_file(), "control: what lies beside it is made, though it was moved"
    assert pixels(here / "a.zarr").any()


@pytest.mark.parametrize(
    ("address", "given", "environment", "found"),
    [
        (None, {}, {}, None),
        ("auto", {}, {}, "auto"),
        ("local", {}, {}, "local"),
        ("head:6379", {"address": "head:6379"}, {}, "head:6379"),
        ("head:6379", {}, {"RAY_ADDRESS": "10.0.0.1:6379"}, None),
        ("head:6379", {}, {}, SpecError),
        ("127.0.0.1:6379", {"timeout": 5}, {}, SpecError),
    ],
)
def test_an_address_is_called_on_if_it_was_given_here(
    address: str | None,
    given: dict[str, object],
    environment: dict[str, str],
    found: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spec_origin.session, "is_connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = RenderSpec(address=address)
    if found is SpecError:
        with pytest.raises(SpecError, match="is not called on unasked; add --address"):
            spec_origin.of_store(spec, given)
    else:
        assert spec_origin.of_store(spec, given).address == found


def test_paths_are_whole_in_the_store_and_the_printed_command_works_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, away = tmp_path / "my studio", tmp_path / "away"
    studio.mkdir()
    away.mkdir()
    shutil.copytree(find("demo"), studio / "model")
    monkeypatch.chdir(studio)
    png = tmp_path / "b c.png"
    spec = small_spec("a b.zarr", height=64, width=64, model="model")
    stop_after(spec, step=2, exports=(png, Path("d.png")))
    run = json.loads((studio / "a b.zarr" / "frieze" / "run.json").read_text())["run"]
    assert run["spec"]["model"] == str(studio / "model")
    told = commands.resume(studio / "a b.zarr", RenderSpec(**run["spec"]), run["outputs"])
    assert "--local" in told
    monkeypatch.chdir(away)
    name, *words = shlex.split(told)
    shown = frieze(*words)
    assert (name, shown.exit_code) == ("frieze", 0), shown.output
    assert png.is_file()
    assert (studio / "d.png").is_file()
    assert os.listdir(away) == []
    shutil.move(studio / "model", away / "model")  # a model counts by what is in it
    again = ("--model", "model", "--local", "--continue", "--out", str(studio / "a b.zarr"))
    words = ["64x64" if word == "256x256" else word for word in DRAW]
    shown = frieze(*words, *again)
    assert shown.exit_code == 0, shown.output


def test_a_live_tiff_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    home = tmp_path / "somebodys-home"
    home.mkdir()
    shutil.copytree(find("demo"), home / "model")
    Image.new("RGB", (64, 64), "red").save(home / "red.png")
    named = {"model": str(home / "model"), "init": str(home / "red.png")}
    out = tmp_path / "a.tif"
    while_drawn: list[bytes] = []

    def listen(event: Event) -> None:
        if event.kind == "block":
            while_drawn.append((tmp_path / "a.tif.part").read_bytes())

    render(small_spec(out, height=64, width=64, num_inference_steps=2, **named), on_event=listen)
    assert while_drawn, "control: it was written live"
    for data in (*while_drawn, out.read_bytes()):
        assert b"red sun" in data, "control: it says what drew it"
        assert home.name.encode() not in data
    assert home.name in (tmp_path / "a.zarr" / "frieze" / "run.json").read_text(), "control"


def test_workers_are_told_as_they_were_asked_for(tmp_path: Path) -> None:
    had = {"exports": ["a.png", "/else/b.png", "s3://bk/c.png"], "overwrite": True}
    spec = RenderSpec(workers=2, max_workers=8, address="head:6379")
    told = commands.resume(tmp_path / "a.zarr", spec, had)
    assert told == (
        f"frieze resume {tmp_path / 'a.zarr'} --workers 2..8 --address head:6379 "
        "--also /else/b.png --also s3://bk/c.png --overwrite"
    )


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (
            "frieze.renderer.outputs.targets.prepare_live",
            ExportError("a.tif needs more than there is"),
        ),
        ("frieze.renderer.driver.driver.keep_sources", MediaError("a.png is gone")),
        ("frieze.renderer.worker.shard.Shard.set_plan", SpecError("no such thing")),
    ],
    ids=["disk full", "source gone", "worker"],
)
def test_what_is_found_late_leaves_nothing_or_a_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    words = ("render", "a sun", "--size", "64x64", "--num-inference-steps", "2", "--local", "-q")
    out = ("--out", str(tmp_path / "a.tif"))
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        refused(frieze(*words, *out), str(error))
        assert list(tmp_path.iterdir()) == []
    assert frieze(*words, *out).exit_code == 0, "control"
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        shown = frieze(*words, *out, "--overwrite")
    assert shown.exit_code == 1, shown.output
    assert f"{error}; finish with: frieze resume" in shown.stderr
    _, told = shown.stderr.strip().rsplit("finish with: ", 1)
    shown = frieze(*shlex.split(told)[1:])
    assert shown.exit_code == 0, shown.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.zarr"]
