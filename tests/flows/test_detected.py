"""Renders that look for repeating frequencies first, and keep what they found."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from frieze.renderer import Event, RenderCancelledError, render, resume
from frieze.renderer.cli import app
from frieze.renderer.planning.plan import plan
from frieze.renderer.repetition import drafts
from frieze.renderer.store.store import Store
from support.drawing import draw, grey_levels, pixels, small_spec
from tolerances import GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")

# Twice as high as trained: plain, it repeats along its rows after 20 tokens, frequency 2 of 16.
HIGH: dict[str, Any] = {"height": 512, "width": 256, "num_inference_steps": 2, "method": "rdfc"}
WISH = HIGH | {"method_options": {"mode": "detect"}}


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detected") / "a.zarr"
    draw(path, **WISH)
    return path


def test_the_demo_model_has_its_dominant_frequency_corrected(
    tmp_path: Path, detected: Path
) -> None:
    assert Store.open(detected).run["detected"] == [2]
    draw(tmp_path / "told.zarr", **HIGH, method_options={"ks": [2]})
    assert np.array_equal(pixels(detected), pixels(tmp_path / "told.zarr"))
    draw(tmp_path / "plain.zarr", **HIGH | {"method": "none"})
    assert grey_levels(pixels(detected), pixels(tmp_path / "plain.zarr")) > 10 * GREY_LEVELS
    assert [path.name for path in detected.parent.iterdir()] == ["a.zarr"]  # no draft stays


@pytest.mark.slow
def test_a_resume_on_more_workers_keeps_what_was_detected(
    tmp_path: Path, detected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and "draft" not in event.message and path.exists():
            cancel.set()

    path = tmp_path / "a.zarr"
    with pytest.raises(RenderCancelledError, match="frieze resume"):
        render(small_spec(path, **WISH), on_event=listen, cancel=cancel)
    monkeypatch.setattr(drafts, "detect", lambda *_: pytest.fail("it was detected before"))
    resume(path, workers=2)
    assert grey_levels(pixels(path), pixels(detected)) <= GREY_LEVELS


def test_at_the_trained_size_nothing_is_drafted_and_nothing_corrected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(drafts, "draft", lambda *_: pytest.fail("no draft is needed"))
    made = plan(small_spec(tmp_path / "a.zarr", method="rdfc", method_options={"mode": "detect"}))
    (only,) = drafts.detect(made)
    assert (only.corrected, only.seen) == ((), ())


def test_doctor_prints_what_it_found_with_a_plot() -> None:
    words = ("doctor", "demo", "--size", "256x512", "--local")
    shown = CliRunner().invoke(app.app, words)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[1].startswith("  row    may repeat: 2 (19.9 tokens, ")
    assert lines[2].strip()[2] == "["  # the bar of frequency 2
    assert lines[3] == "correct: 2"
    assert lines[4] == "round 1: frequencies corrected: none"
    assert lines[5].split()[:4] == ["row", "repeats", "after", "20,"]
    assert lines[6].strip()[19] == "["  # the bar of lag 20
    assert lines[-1] == "correct: 2"


def test_large_pictures_are_not_drafted_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "draft", lambda *_: pytest.fail("it takes long"))
    words = ("doctor", "demo", "--size", "1024x1024", "--local", "--json")
    shown = CliRunner().invoke(app.app, words)
    assert shown.exit_code == 0, shown.output
    (found,) = map(json.loads, shown.stdout.splitlines())
    assert [each["axis"] for each in found["attention"]] == ["row", "column"]
    assert "--detector draft" in shown.stderr


def test_attention_at_the_trained_size_chooses_what_drafts_choose(
    tmp_path: Path, detected: Path
) -> None:
    wish = HIGH | {"method_options": {"mode": "detect", "detector": "attention"}}
    draw(tmp_path / "a.zarr", **wish)
    assert Store.open(tmp_path / "a.zarr").run["detected"] == [2]
    assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(detected))
