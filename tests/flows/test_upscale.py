"""Pictures that are handed in and made larger: by any workers, stopped, killed and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.export import picture
from frieze.renderer import Event, RenderSpec, StoreError, render, resume
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.store.store import Store
from support.decoders import plain, saved
from support.drawing import grey_levels, pixels
from support.unfinished import kill_at, stop_at
from tolerances import CONTROL, GREY_LEVELS

SIDES = (92, 32)  # rows that are no whole cells of the latent
WISH: dict[str, Any] = {"height": 368, "width": 128, "chunk": 64, "local": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "a.png"
    Image.fromarray(picture(*SIDES)).save(path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path, source: Path) -> Path:
    """Enlarged by one worker."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    render(spec(path, folder, source))
    return path


def spec(out: Path, folder: Path, source: Path, **fields: Any) -> RenderSpec:
    asked = {"out": str(out), "decoder": str(folder), "upscale": str(source)}
    return RenderSpec.model_validate(WISH | asked | fields)


def test_any_number_of_workers_makes_the_same(
    tmp_path: Path, folder: Path, source: Path, whole: Path
) -> None:
    assert pixels(whole).shape == (368, 128, 3)
    path = tmp_path / "a.zarr"  # on two workers its rounds are drawn, below
    render(spec(path, folder, source, workers=5, park="host"))
    assert grey_levels(pixels(path), pixels(whole)) <= GREY_LEVELS
    render(spec(tmp_path / "seed.zarr", folder, source, seed=8))  # the control
    assert grey_levels(pixels(tmp_path / "seed.zarr"), pixels(whole)) > GREY_LEVELS


def test_the_denoiser_is_not_loaded_and_no_prompt_encoded(
    tmp_path: Path, folder: Path, source: Path, whole: Path
) -> None:
    """A model that has lost the weights of both is enough."""
    model = tmp_path / "model"
    model.mkdir()
    for part in SHIPPED["demo"].iterdir():
        kept = part.name not in ("transformer", "text_encoder", "text_encoder_2")
        if kept or part.is_file():
            (model / part.name).symlink_to(part)
            continue
        (model / part.name).mkdir()
        for file in part.iterdir():
            if file.suffix != ".safetensors":
                (model / part.name / file.name).symlink_to(file)
        (model / part.name / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    render(spec(tmp_path / "a.zarr", folder, source, model=str(model)))
    assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(whole))


def test_one_that_was_stopped_goes_on_to_the_same_bytes_without_its_picture(
    tmp_path: Path, folder: Path, source: Path, whole: Path
) -> None:
    own, path = tmp_path / "own.png", tmp_path / "a.zarr"
    own.write_bytes(source.read_bytes())
    stop_at(spec(path, folder, own), "block")
    assert 0 < len(Store.open(path).done()) < 12
    own.unlink()
    resume(path)
    assert np.array_equal(pixels(path), pixels(whole))


def test_one_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, folder: Path, source: Path, whole: Path
) -> None:
    path = tmp_path / "a.zarr"
    kill_at(spec(path, folder, source), "block")
    resume(path)
    assert np.array_equal(pixels(path), pixels(whole))


def test_what_became_of_its_picture_in_the_store_is_known(
    tmp_path: Path, folder: Path, source: Path, whole: Path
) -> None:
    """Its copy is damaged: it is taken from the file again, or the store refused without it."""
    own = tmp_path / "own.png"
    own.write_bytes(source.read_bytes())
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for path in paths:
        stop_at(spec(path, folder, own), "block")
        chunk = path / "frieze" / "latents" / "upscale" / "c" / "0" / "0" / "0" / "1" / "0"
        chunk.write_bytes(bytes(255 - byte for byte in chunk.read_bytes()))
    resume(paths[0])
    assert np.array_equal(pixels(paths[0]), pixels(whole))
    own.unlink()
    with pytest.raises(StoreError, match="it cannot be made again"):
        resume(paths[1])


def test_what_was_handed_in_is_what_is_there_on_the_average(tmp_path: Path) -> None:
    """Where nothing is trained; the control is the picture, moved by a pixel."""
    own = plain(tmp_path / "plain")
    rows, columns = np.mgrid[0:92, 0:32]
    waves = np.stack([np.sin(rows / 5), np.cos(columns / 7), np.sin((rows + columns) / 9)], -1)
    smooth = (127.5 + 120 * waves).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    render(spec(tmp_path / "a.zarr", own, tmp_path / "a.png", workers=2))
    mean = pixels(tmp_path / "a.zarr").astype(float).reshape(92, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(mean - smooth).mean() < 1
    assert np.abs(np.roll(mean, 1, 0) - smooth).mean() > 1 + CONTROL


def test_rounds_are_those_of_one_worker_and_go_on_to_the_same_bytes(
    tmp_path: Path, source: Path
) -> None:
    """Twice by 2: blocks and bands of any size make the same, so that no edge of one is seen."""
    own = saved(tmp_path / "decoder", largest_scale=2.0)
    render(spec(tmp_path / "a.zarr", own, source))
    alone = pixels(tmp_path / "a.zarr")
    render(spec(tmp_path / "two.zarr", own, source, chunk=128, workers=2))
    assert grey_levels(pixels(tmp_path / "two.zarr"), alone) <= GREY_LEVELS
    saves: list[Event] = []

    def listen(event: Event) -> None:
        if event.kind in ("save", "block"):
            saves.append(event)
            raise KeyboardInterrupt

    for _ in range(3):  # after the first round, after the second, while decoding
        with pytest.raises(KeyboardInterrupt):
            render(spec(tmp_path / "b.zarr", own, source), continued=True, on_event=listen)
    assert [event.kind for event in saves] == ["save", "save", "block"]
    resume(tmp_path / "b.zarr")
    assert np.array_equal(pixels(tmp_path / "b.zarr"), alone)
    once = saved(tmp_path / "once")  # the control: in one round
    render(spec(tmp_path / "c.zarr", once, source))
    assert grey_levels(pixels(tmp_path / "c.zarr"), alone) > GREY_LEVELS
