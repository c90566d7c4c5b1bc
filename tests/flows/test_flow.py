"""The whole way from spec to pixels on the demo model: against stock diffusers, on any number of
ranks, stopped and resumed."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image

from contracts.export import picture
from frieze.renderer import (
    Event,
    FingerprintError,
    RenderCancelledError,
    RenderFailedError,
    RenderHandle,
    StoreError,
    render,
    resume,
)
from frieze.renderer.checkpoints.checkpoint import describe, find
from frieze.renderer.store.store import Store
from support.drawing import CASCADE, LATENTS, PROMPT, draw, grey_levels, pixels, small_spec
from tolerances import CONTROL, GREY_LEVELS, STOCK_LATENTS

pytestmark = [pytest.mark.usefixtures("kept_encoders"), pytest.mark.long]


@pytest.fixture(scope="module")
def stock() -> tuple[torch.Tensor, np.ndarray]:
    """What stock diffusers draws: final latents [16, 32, 32] and pixels [256, 256, 3]."""
    pipeline = FluxPipeline.from_pretrained(find("demo"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    options = {
        "height": 256,
        "width": 256,
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "max_sequence_length": describe("demo").max_sequence_length,
    }
    packed = pipeline(
        PROMPT, generator=torch.Generator().manual_seed(7), output_type="latent", **options
    ).images
    latents = pipeline._unpack_latents(packed, 256, 256, pipeline.vae_scale_factor)
    picture = pipeline(PROMPT, generator=torch.Generator().manual_seed(7), **options).images[0]
    return latents[0], np.asarray(picture)


def final_latents(store: Path, stage: int = 0) -> torch.Tensor:
    opened = Store.open(str(store))
    state = opened.last_state()
    assert state is not None
    rows = opened.load_latents(stage, state.slot, slice(0, opened.layout.latents[stage].shape[3]))
    return torch.from_numpy(rows)[:, 0]


def test_one_worker_equals_stock_diffusers(
    tmp_path: Path, stock: tuple[torch.Tensor, np.ndarray]
) -> None:
    draw(tmp_path / "a.zarr")
    assert (final_latents(tmp_path / "a.zarr") - stock[0]).abs().max() <= STOCK_LATENTS
    assert grey_levels(pixels(tmp_path / "a.zarr"), stock[1]) <= GREY_LEVELS


def test_control_another_seed_differs_from_stock_diffusers(
    tmp_path: Path, stock: tuple[torch.Tensor, np.ndarray]
) -> None:
    draw(tmp_path / "a.zarr", seed=8)
    assert (final_latents(tmp_path / "a.zarr") - stock[0]).abs().max() > CONTROL
    assert grey_levels(pixels(tmp_path / "a.zarr"), stock[1]) > GREY_LEVELS


SIZES = [(128, 512), (384, 128)]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], np.ndarray]:
    """The pictures of one rank, by (width, height)."""
    folder = tmp_path_factory.mktemp("one")
    made = {}
    for width, height in SIZES:
        path = folder / f"{width}x{height}.zarr"
        draw(path, width=width, height=height, num_inference_steps=3)
        made[width, height] = pixels(path)
    return made


# Each size once; the others in `make test-all`.
RANKS = [
    pytest.param(size, n, marks=[] if (n == 3) == (size[0] > 128) and n != 5 else pytest.mark.slow)
    for size in SIZES
    for n in (2, 3, 5)
]


@pytest.mark.parametrize(("size", "workers"), RANKS)
def test_any_number_of_ranks_draws_the_same_picture(
    tmp_path: Path,
    one_rank: dict[tuple[int, int], np.ndarray],
    size: tuple[int, int],
    workers: int,
) -> None:
    width, height = size
    draw(tmp_path / "a.zarr", width=width, height=height, num_inference_steps=3, workers=workers)
    assert grey_levels(pixels(tmp_path / "a.zarr"), one_rank[size]) <= GREY_LEVELS


def test_control_without_the_band_mode_ranks_disagree(
    tmp_path: Path,
    one_rank: dict[tuple[int, int], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frieze.cluster.strategies.bands.band_mode", lambda *a, **k: nullcontext())
    monkeypatch.setattr(
        "frieze.renderer.autoencoders.decoding.band_mode", lambda *a, **k: nullcontext()
    )
    draw(tmp_path / "a.zarr", width=128, height=512, num_inference_steps=3, workers=2)
    assert grey_levels(pixels(tmp_path / "a.zarr"), one_rank[128, 512]) > GREY_LEVELS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The picture of a two-stage cascade that nothing disturbs."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    draw(path, **CASCADE)
    return pixels(path)


def stop_after(number: int, kind: str, path: Path) -> None:
    """Start the cascade and cancel it at the number-th event of a kind."""
    cancel, seen = threading.Event(), []

    def listen(event: Event) -> None:
        seen.append(event.kind)
        if seen.count(kind) == number:
            cancel.set()

    with pytest.raises(RenderCancelledError, match="frieze resume"):
        render(small_spec(path, **CASCADE), on_event=listen, cancel=cancel)


# In a stage, between two, and while it is decoded.
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (3, "step"),
        (1, "block"),
        *(pytest.param(number, "step", marks=pytest.mark.slow) for number in (2, 5)),
    ],
)
def test_a_stopped_render_resumes_to_the_same_bytes(
    tmp_path: Path, undisturbed: np.ndarray, number: int, kind: str
) -> None:
    path = tmp_path / "a.zarr"
    stop_after(number, kind, path)
    resume(path)
    assert np.array_equal(pixels(path), undisturbed)


@pytest.mark.slow  # on three they are gone on with, below
def test_cascades_do_not_depend_on_the_number_of_ranks(
    tmp_path: Path, undisturbed: np.ndarray
) -> None:
    """On one what two draw."""
    draw(tmp_path / "1.zarr", **(CASCADE | {"workers": 1}))
    assert grey_levels(pixels(tmp_path / "1.zarr"), undisturbed) <= GREY_LEVELS


@pytest.mark.slow
@pytest.mark.parametrize("stages", [CASCADE, LATENTS], ids=["pixels", "latents"])
def test_cascades_on_three_ranks_are_those_of_one(tmp_path: Path, stages: dict[str, Any]) -> None:
    draw(tmp_path / "1.zarr", **(stages | {"workers": 1}))
    draw(tmp_path / "3.zarr", **(stages | {"workers": 3}))
    assert grey_levels(pixels(tmp_path / "1.zarr"), pixels(tmp_path / "3.zarr")) <= GREY_LEVELS


def test_how_a_stage_is_enlarged_shows(tmp_path: Path, undisturbed: np.ndarray) -> None:
    draw(tmp_path / "a.zarr", **LATENTS)
    assert grey_levels(pixels(tmp_path / "a.zarr"), undisturbed) > GREY_LEVELS


def test_parked_bands_draw_the_same_bytes(tmp_path: Path, undisturbed: np.ndarray) -> None:
    draw(tmp_path / "a.zarr", **CASCADE, park="disk")
    assert np.array_equal(pixels(tmp_path / "a.zarr"), undisturbed)


def test_a_render_resumes_on_another_number_of_workers(
    tmp_path: Path, undisturbed: np.ndarray
) -> None:
    path = tmp_path / "a.zarr"
    stop_after(4, "step", path)
    resume(path, workers=3)
    assert grey_levels(pixels(path), undisturbed) <= GREY_LEVELS


def test_a_callback_may_interrupt_and_read_the_latents(tmp_path: Path) -> None:
    path, shapes = tmp_path / "a.zarr", []

    def callback(handle: RenderHandle, step: int, timestep: float, _: object) -> None:
        shapes.append((step, tuple(handle.latents().shape), timestep))
        handle.interrupt = step == 1

    with pytest.raises(RenderCancelledError):
        render(small_spec(path, workers=2), callback_on_step_end=callback)
    assert [(step, shape) for step, shape, _ in shapes] == [
        (0, (16, 1, 32, 32)),
        (1, (16, 1, 32, 32)),
    ]
    assert shapes[0][2] == pytest.approx(1000.0)


def test_a_store_of_other_weights_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    stop_after(1, "step", path)
    monkeypatch.setattr(
        "frieze.renderer.driver.fingerprint.weights_digest", lambda folder: "another"
    )
    with pytest.raises(FingerprintError, match="weights"):
        resume(path)


def test_resuming_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        resume(tmp_path / "nowhere.zarr")


def test_a_worker_that_breaks_leaves_a_store_that_resumes(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    from frieze.cluster.fleet import WorkerLostError
    from frieze.renderer.worker.shard import Shard

    step = Shard.step

    def broken(self: Shard, index: int, slot: int | None) -> object:
        if self.comm.rank == 1 and self.stage_index == 1:
            raise WorkerLostError("rank 1 was lost")
        return step(self, index, slot)

    monkeypatch.setattr(Shard, "step", broken)
    with pytest.raises(RenderFailedError, match="frieze resume"):
        render(small_spec(path, **CASCADE))
    monkeypatch.undo()
    resume(path)
    assert np.array_equal(pixels(path), undisturbed)


def test_sixteen_bits_hold_what_eight_bits_round(tmp_path: Path) -> None:
    draw(tmp_path / "8.zarr", width=64)
    draw(tmp_path / "16.zarr", width=64, bits=16)
    fine = pixels(tmp_path / "16.zarr")
    assert fine.dtype == np.uint16
    assert len(np.unique(fine)) > 256
    assert grey_levels(np.round(fine / 257), pixels(tmp_path / "8.zarr")) <= GREY_LEVELS


def test_a_live_tiff_equals_its_store_and_appears_whole(tmp_path: Path) -> None:
    import tifffile

    out, seen = tmp_path / "a.tif", []
    model, init = find("demo").absolute(), tmp_path / "of mine" / "first.png"
    init.parent.mkdir()
    Image.fromarray(picture(256, 256)).save(init)
    result = render(
        small_spec(out, workers=2, model=str(model), init=str(init)),
        on_event=lambda event: seen.append((event.kind, out.exists())),
    )
    with tifffile.TiffFile(out) as file:
        about = json.loads(file.pages.first.description)
    assert about == Store.open(tmp_path / "a.zarr").provenance
    assert about["picture"]["model"] == model.name, "no folder of this machine"
    assert not [path for path in (model, init) if str(path.parent).encode() in out.read_bytes()]
    assert result.path == out
    assert np.array_equal(tifffile.imread(out), pixels(tmp_path / "a.zarr"))
    assert not any(exists for kind, exists in seen if kind != "done")
    assert not (tmp_path / "a.tif.part").exists()
