"""`--continue`: the same command again finishes what it began, and touches nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frieze.renderer.store.store import Store
from support.command_line import frieze, refused
from support.drawing import DRAW, draw, pixels, small_spec, stop_after

pytestmark = pytest.mark.usefixtures("kept_encoders")

AGAIN = (*DRAW, "--local", "--continue", "--quiet")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    draw(path)
    return pixels(path)


def test_it_begins_where_nothing_is(tmp_path: Path, undisturbed: np.ndarray) -> None:
    shown = frieze(*AGAIN, "--out", str(tmp_path / "a.zarr"))
    assert shown.exit_code == 0, shown.output
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)


def test_it_finishes_what_was_stopped_with_the_workers_asked_for(
    tmp_path: Path, undisturbed: np.ndarray
) -> None:
    png = tmp_path / "a.png"
    stop_after(small_spec(tmp_path / "a.zarr"), step=3, exports=(png,))
    words = ("--out", str(tmp_path / "a.zarr"), "--workers", "1", "--also", str(png))
    shown = frieze(*AGAIN[:-1], *words)
    assert shown.exit_code == 0, shown.output
    assert "step 4/4" in shown.stderr
    assert "stage 1/1: step 1/4" not in shown.stderr
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)
    assert png.is_file()


def test_a_relative_name_is_the_store_that_it_was(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after(small_spec("a.zarr"), step=3, exports=(Path("a.png"),))
    shown = frieze(*AGAIN, "--out", "a.zarr", "--also", "a.png")
    assert shown.exit_code == 0, shown.output
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)


def test_what_is_finished_is_left_alone_and_only_missing_files_are_made(tmp_path: Path) -> None:
    tiff, png = tmp_path / "a.tif", tmp_path / "a.png"
    words = (*AGAIN, "--out", str(tiff), "--also", str(png))
    assert frieze(*words).exit_code == 0
    journal = tmp_path / "a.zarr" / "frieze" / "journal.jsonl"
    events, drawn = journal.read_bytes(), tiff.stat().st_mtime_ns
    png.unlink()
    assert frieze(*words).exit_code == 0
    assert (journal.read_bytes(), tiff.stat().st_mtime_ns) == (events, drawn)
    assert png.is_file()


def test_a_file_that_the_first_command_did_not_name_is_made_too(tmp_path: Path) -> None:
    draw(tmp_path / "a.zarr")
    assert frieze(*AGAIN, "--out", str(tmp_path / "a.tif")).exit_code == 0
    assert (tmp_path / "a.tif").is_file()


def test_another_picture_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    stop_after(small_spec(out), step=1)
    before = Store.open(out).last_state()
    refused(frieze(*AGAIN, "--out", str(out), "--seed", "8"), "seed", "7", "8", "another name")
    assert Store.open(out).last_state() == before


def test_a_picture_started_from_another_file_is_another_picture(tmp_path: Path) -> None:
    out, init = tmp_path / "a.zarr", tmp_path / "sketch.png"
    Image.new("RGB", (64, 64), "red").save(init)
    stop_after(small_spec(out, init=str(init), strength=0.9), step=2)
    words = (*AGAIN, "--out", str(out), "--init", str(init), "--strength", "0.9")
    Image.new("RGB", (64, 64), "blue").save(init)
    refused(frieze(*words), "starts_from")
    Image.new("RGB", (64, 64), "red").save(init)
    assert frieze(*words).exit_code == 0


def test_a_strangers_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "theirs").write_text("kept")
    refused(frieze(*AGAIN, "--out", str(tmp_path / "a.zarr")), "no Frieze store")
    assert (tmp_path / "a.zarr" / "theirs").read_text() == "kept"


def test_continuing_and_overwriting_contradict_each_other(tmp_path: Path) -> None:
    refused(frieze(*AGAIN, "--overwrite", "--out", str(tmp_path / "a.zarr")), "use one")
    assert list(tmp_path.iterdir()) == []
