"""Renders with a decoder of any size: the same on all workers, stopped, killed and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frieze.renderer import StoreError, resume
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.store.store import Store
from support.decoders import plain, saved
from support.drawing import draw, grey_levels, pixels, small_spec
from support.unfinished import kill_at, stop_at
from tolerances import CONTROL, GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")
WISH: dict[str, Any] = {"width": 192, "height": 384, "chunk": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Drawn on one worker."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    draw(path, decoder=str(folder), **WISH)
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"workers": 3},
        # Parked ones enlarge in `test_upscale.py`.
        pytest.param({"workers": 2, "park": "host"}, marks=pytest.mark.slow),
        pytest.param({"workers": 2}, marks=pytest.mark.slow),
        pytest.param({"workers": 5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_any_number_of_workers_draws_the_same(
    tmp_path: Path, folder: Path, whole: Path, fields: dict[str, Any]
) -> None:
    assert pixels(whole).shape == (384, 192, 3)
    draw(tmp_path / "a.zarr", decoder=str(folder), **WISH, **fields)
    assert grey_levels(pixels(tmp_path / "a.zarr"), pixels(whole)) <= GREY_LEVELS


def test_control_another_seed_is_another_picture(tmp_path: Path, folder: Path, whole: Path) -> None:
    draw(tmp_path / "a.zarr", decoder=str(folder), seed=8, **WISH)
    assert grey_levels(pixels(tmp_path / "a.zarr"), pixels(whole)) > GREY_LEVELS


def test_two_ranks_of_one_band_decode_rows_of_their_own(tmp_path: Path) -> None:
    own = saved(tmp_path / "decoder", SHIPPED["demo-unet"])
    wish = {"decoder": str(own), "model": "demo-unet", "guidance_scale": 3.0, **WISH}
    draw(tmp_path / "a.zarr", **wish)
    draw(tmp_path / "b.zarr", workers=4, guidance_ranks=2, **wish)
    assert grey_levels(pixels(tmp_path / "a.zarr"), pixels(tmp_path / "b.zarr")) <= GREY_LEVELS


@pytest.mark.slow  # as one that was killed, below
def test_one_that_was_stopped_while_decoding_goes_on_to_the_same_bytes(
    tmp_path: Path, folder: Path, whole: Path
) -> None:
    path = tmp_path / "a.zarr"
    stop_at(small_spec(path, decoder=str(folder), **WISH), "block")
    there = len(Store.open(path).done())
    assert 0 < there < 18
    resume(path)
    assert np.array_equal(pixels(path), pixels(whole))


def test_one_that_was_killed_while_decoding_goes_on_to_the_same_bytes(
    tmp_path: Path, folder: Path, whole: Path
) -> None:
    path = tmp_path / "a.zarr"
    kill_at(small_spec(path, decoder=str(folder), **WISH), "block")
    resume(path)
    assert np.array_equal(pixels(path), pixels(whole))


def test_a_store_is_not_gone_on_with_by_another_decoder(tmp_path: Path, folder: Path) -> None:
    own = shutil.copytree(folder, tmp_path / "decoder")
    path = tmp_path / "a.zarr"
    stop_at(small_spec(path, decoder=str(own), **WISH), "step")
    config = (own / "config.json").read_text()
    (own / "config.json").write_text(json.dumps(json.loads(config) | {"num_steps": 2}))
    with pytest.raises(StoreError, match=r"was begun otherwise \(decoder: "):
        resume(path)
    (own / "config.json").write_text(config)
    own.rename(tmp_path / "moved")
    (tmp_path / "decoder").symlink_to("moved")
    resume(path)


def test_the_picture_is_the_enlarged_decode_where_nothing_is_trained(tmp_path: Path) -> None:
    """Box-averaged it is the picture of the trained size; the control is that, moved."""
    own = plain(tmp_path / "plain")
    draw(tmp_path / "a.zarr", decoder=str(own), num_inference_steps=2, width=512, height=512)
    draw(tmp_path / "b.zarr", num_inference_steps=2)
    large, small = (pixels(tmp_path / f"{name}.zarr").astype(float) for name in "ab")
    halved = large.reshape(256, 2, 256, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 1
    assert np.abs(np.roll(halved, 8, 0) - small).mean() > 1 + CONTROL
