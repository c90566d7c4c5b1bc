"""Clips that are redrawn larger by a model of clips: whole, or in overlapping windows of frames."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zarr

import checkpoints
from contracts.export import clip
from frieze.renderer import RenderSpec, render, resume
from frieze.renderer.planning.plan import plan
from support.command_line import frieze, refused
from support.drawing import grey_levels
from support.unfinished import stop_at
from tolerances import GREY_LEVELS

FRAMES = 13  # four of latents, of which the model knows two together
WISH: dict[str, Any] = {"height": 96, "width": 64, "num_frames": FRAMES, "chunk": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = checkpoints.build("wan", tmp_path_factory.mktemp("wan") / "model")
    (made / "frieze.json").write_text('{"training_size": 64, "training_frames": 5}')
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "a.mkv"
    with av.open(str(path), "w") as opened:
        stream: Any = opened.add_stream("ffv1", rate=Fraction(12))
        stream.height, stream.width, stream.pix_fmt = 48, 32, "bgr0"
        for number, frame_HWC in enumerate(clip(FRAMES, 48, 32)):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(format="bgr0")
            frame.pts = number
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())
    return path


def spec(out: Path, model: Path, source: Path, **fields: Any) -> RenderSpec:
    asked = {"out": str(out), "model": str(model), "upscale": str(source), "creativity": 0.4}
    asked |= {"local": True, "num_inference_steps": 2, "max_sequence_length": 16, "seed": 3}
    return RenderSpec.model_validate(WISH | asked | fields)


def pixels(store: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(str(store / "0"), mode="r")[:])


def test_windows_of_frames_are_those_of_one_worker_and_go_on_to_the_same_bytes(
    tmp_path: Path, model: Path, source: Path
) -> None:
    made = plan(spec(tmp_path / "a.zarr", model, source))
    assert len(made.frame_windows) > 1
    assert "windows of 2 latent frames" in str(made)
    render(spec(tmp_path / "a.zarr", model, source))
    alone = pixels(tmp_path / "a.zarr")
    render(spec(tmp_path / "b.zarr", model, source, workers=3))
    assert grey_levels(pixels(tmp_path / "b.zarr"), alone) <= GREY_LEVELS
    stop_at(spec(tmp_path / "c.zarr", model, source), "step")
    resume(tmp_path / "c.zarr")
    assert np.array_equal(pixels(tmp_path / "c.zarr"), alone)
    hints = json.loads((model / "frieze.json").read_text())
    (model / "frieze.json").write_text(json.dumps(hints | {"training_frames": 13}))
    render(spec(tmp_path / "d.zarr", model, source))  # the control: together
    (model / "frieze.json").write_text(json.dumps(hints))
    assert grey_levels(pixels(tmp_path / "d.zarr"), alone) > GREY_LEVELS


def test_a_clip_that_cannot_be_redrawn_is_refused(
    tmp_path: Path, model: Path, source: Path
) -> None:
    words = ["upscale", str(source), "--with", "render", "--local", "--size", "64x96"]
    words += ["--out", str(tmp_path / "a.mp4")]
    refused(frieze(*words), "is a clip, and flux would redraw its frames one by one")
    refused(frieze(*words, "--model", str(model), "--frames", "12"), "nearest that works is 13")
    refused(frieze(*words, "--model", str(model), "--frames", "17"), "has 13 frames; 17 are")
    assert not list(tmp_path.iterdir())
