"""Clips with a decoder of any size, frame by frame; other workers go on in the middle of blocks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr

import checkpoints
from frieze.renderer import RenderCancelledError, RenderSpec, render, resume
from frieze.renderer.store.store import Store
from support.decoders import plain, saved
from support.drawing import grey_levels
from support.unfinished import stop_at
from tolerances import GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")
FRAMES = 5  # two of latents
WISH: dict[str, Any] = {
    "prompt": "a red sun over blue mountains",
    "negative_prompt": "grey",
    "seed": 7,
    "guidance_scale": 4.0,
    "num_frames": FRAMES,
    "num_inference_steps": 1,
    "local": True,
    "max_sequence_length": 48,
    "chunk": 64,
}
LARGE = {"height": 256, "width": 128}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = checkpoints.build("wan", tmp_path_factory.mktemp("wan") / "model")
    (made / "frieze.json").write_text('{"training_size": 96}')
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return saved(tmp_path_factory.mktemp("decoder"), model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, folder: Path) -> np.ndarray:
    """Drawn on one worker."""
    return drawn(tmp_path_factory.mktemp("whole") / "a.zarr", model, folder)


def spec(out: Path, model: Path, folder: Path | None, **fields: Any) -> RenderSpec:
    asked = {"out": str(out), "model": str(model), "decoder": folder and str(folder)}
    return RenderSpec.model_validate(WISH | LARGE | asked | fields)


def frames(store: Path) -> np.ndarray:
    """[T, H, W, 3]."""
    return np.moveaxis(np.asarray(zarr.open_array(str(store / "0"), mode="r")[:]), 1, -1)


def drawn(out: Path, model: Path, folder: Path | None, **fields: Any) -> np.ndarray:
    render(spec(out, model, folder, **fields))
    return frames(out)


def test_any_number_of_workers_draws_the_same_clip(
    tmp_path: Path, model: Path, folder: Path, whole: np.ndarray
) -> None:
    assert whole.shape == (FRAMES, 256, 128, 3)
    made = drawn(tmp_path / "a.zarr", model, folder, workers=3)
    assert grey_levels(made, whole) <= GREY_LEVELS
    other = drawn(tmp_path / "b.zarr", model, folder, seed=8)  # the control
    assert grey_levels(other, whole) > GREY_LEVELS


def test_each_frame_is_its_own_enlarged(tmp_path: Path, model: Path) -> None:
    """Where nothing is trained; the control is the clip, moved by a frame."""
    own = plain(tmp_path / "plain", model=model)
    large = drawn(tmp_path / "a.zarr", model, own, height=192, width=192)
    small = drawn(tmp_path / "b.zarr", model, None, height=96, width=96)
    small_T3HW = torch.from_numpy(small).movedim(-1, 1).float()
    wanted = F.interpolate(small_T3HW, scale_factor=2, mode="bicubic").clamp(0, 255)
    expected = wanted.movedim(1, -1).numpy()
    apart = np.abs(large - expected).mean()
    assert apart < 2  # `small` ends at black and white
    assert np.abs(np.roll(large, 1, 0) - expected).mean() > 5 * apart


def test_more_workers_and_then_fewer_go_on_in_the_middle(
    tmp_path: Path, model: Path, folder: Path, whole: np.ndarray
) -> None:
    """Each draws rows of its own then, without what the others have finished."""
    path = tmp_path / "a.zarr"
    stop_at(spec(path, model, folder, workers=2), "block")
    there = len(Store.open(path).done())
    cancel = threading.Event()
    with pytest.raises(RenderCancelledError):
        resume(
            path, workers=4, cancel=cancel, on_event=lambda e: e.kind == "block" and cancel.set()
        )
    assert 0 < there < len(Store.open(path).done()) < Store.open(path).layout.num_blocks
    resume(path, workers=3)
    assert grey_levels(frames(path), whole) <= GREY_LEVELS
    journal = Store.open(path).journal.read()
    ids = [name for event in journal for name in event.get("ids", [])]
    assert len(ids) == len(set(ids)) == Store.open(path).layout.num_blocks
