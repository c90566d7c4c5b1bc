"""Guided renders of the demo model: on any number of ranks, stopped and resumed, and off."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.gallery import Gallery
from frieze.cluster.comm import Comm, solo
from frieze.cluster.layout import Band
from frieze.renderer import Event, RenderCancelledError, render, resume
from frieze.renderer.store.store import Store
from frieze.renderer.worker.low_pass import haar
from frieze.renderer.worker.stage_guides import Grid
from support.drawing import draw, grey_levels, pixels, small_spec
from support.shared import Once
from tolerances import CONTROL, EXACT_FLOAT32, GREY_LEVELS

pytestmark = [pytest.mark.usefixtures("kept_encoders"), pytest.mark.long]

# 256 x 64, then 384 x 96 from fresh noise: on three ranks bands of 4 + 4 + 4 latent chunks.
STAGES = [{"scale": 2 / 3, "steps": 2}, {"scale": 1.0, "steps": 3}]
PLACED = [stage | {"enlarge": "latents"} for stage in STAGES]
RESTARTED = [{"scale": 2 / 3, "steps": 3}, {"scale": 1.0, "start": 0.7, "steps": 3}]


def guided(method: str, stages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return {
        "height": 384,
        "width": 96,
        "method": method,
        "method_options": options,
        "stages": stages,
    }


RECIPES = {
    "imax": guided("imax", STAGES),
    "resolution": guided("ultraimage", STAGES, mode="resolution", schedule="cosine_shift"),
    "noisy": guided("ultraimage", PLACED, mode="view", top=0.0, left=0.2),
    "feathered": guided("ultraimage", PLACED, mode="view", form="feathered", share=0.6),
    "projected": guided("ultraimage", PLACED, mode="view", form="projected"),
    "hiflow": guided("hiflow", RESTARTED),
}
SQUARE = {"height": 288, "width": 288}  # where both methods stretch both axes alike
# What guides are when they are off.
PLAIN = {
    "direct": guided("ultraimage", STAGES),
    "ntk": guided("ntk", RESTARTED, convention="factor", factor=10.0, clip=True) | SQUARE,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The store of a recipe drawn by one rank, once a module."""
    folder, once = tmp_path_factory.mktemp("alone"), Once()

    def drawn(name: str) -> Path:
        path = folder / f"{name}.zarr"
        once(name, lambda: draw(path, **(RECIPES | PLAIN)[name]))
        return path

    return drawn


def latents(path: Path, name: str) -> Tensor:
    """Guiding latents, or a stage's last ones, [C, T, H, W]; the journal says in which slot."""
    store = Store.open(path)
    names = [array.name for array in store.layout.latents]
    states = [event for event in store.journal.read() if event["event"] == "state"]
    slots = [event["slot"] for event in states if str(event["stage"]) == name]
    shape = store.layout.latents[names.index(name)].shape
    slot = slots[-1] if slots else 0
    found = store.load_latents(names.index(name), slot, slice(0, shape[3]))
    return torch.from_numpy(found[:16])


# Each guide once, hiflow where it goes on with another number; what else is around a view, and the
# other numbers, in `make test-all`.
QUICK = {("imax", 2), ("resolution", 3), ("feathered", 3)}
RANKS = [
    pytest.param(name, n, marks=[] if (name, n) in QUICK else [pytest.mark.slow])
    for name in RECIPES
    for n in (2, 3)
]


@pytest.mark.parametrize(("name", "workers"), RANKS)
def test_guided_renders_do_not_depend_on_the_number_of_ranks(
    tmp_path: Path, alone: Any, name: str, workers: int
) -> None:
    draw(tmp_path / "a.zarr", **RECIPES[name], workers=workers)
    assert grey_levels(pixels(tmp_path / "a.zarr"), pixels(alone(name))) <= GREY_LEVELS


def test_guided_renders_do_not_depend_on_the_ranks_of_the_guidance(tmp_path: Path) -> None:
    fields = RECIPES["imax"] | {"negative_prompt": "grey", "true_cfg_scale": 2.0}
    draw(tmp_path / "1.zarr", **fields)
    draw(tmp_path / "4.zarr", **fields, workers=4, guidance_ranks=2, ulysses=2)
    assert grey_levels(pixels(tmp_path / "1.zarr"), pixels(tmp_path / "4.zarr")) <= GREY_LEVELS


def test_control_half_a_token_off_needs_rows_of_the_neighbours(
    tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unborrowed(grid: Grid, comm: Comm, x_BCTHW: Tensor) -> Tensor:
        m, last = grid.margin, comm.rank == comm.size - 1
        if not m:
            return x_BCTHW
        return F.pad(x_BCTHW, (m, m, m, m if last else -m))

    whole = pixels(alone("imax"))
    monkeypatch.setattr(Grid, "into", unborrowed)
    draw(tmp_path / "a.zarr", **RECIPES["imax"], workers=2)
    assert grey_levels(pixels(tmp_path / "a.zarr"), whole) > GREY_LEVELS


def test_control_bands_that_attend_alone_draw_another_picture(
    tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_its_own(denoised: Any, x: Tensor, level: Any, comms: Any, **_: Any) -> Any:
        return denoised(x, level)

    whole = pixels(alone("imax"))
    monkeypatch.setattr("frieze.cluster.strategies.bands.predict", on_its_own)
    draw(tmp_path / "a.zarr", **RECIPES["imax"], workers=2)
    assert grey_levels(pixels(tmp_path / "a.zarr"), whole) > GREY_LEVELS


def test_a_render_is_the_same_after_one_whose_method_listened_to_the_model(
    tmp_path: Path, alone: Any
) -> None:
    draw(tmp_path / "heard.zarr", **guided("sega", STAGES[1:]), workers=2)
    draw(tmp_path / "a.zarr", **RECIPES["imax"])
    assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(alone("imax")))


def stop_after(number: int, path: Path, fields: dict[str, Any]) -> None:
    """Cancel a render at its number-th step."""
    cancel, seen = threading.Event(), []

    def listen(event: Event) -> None:
        seen.append(event.kind)
        if seen.count("step") == number:
            cancel.set()

    with pytest.raises(RenderCancelledError, match="frieze resume"):
        render(small_spec(path, **fields), on_event=listen, cancel=cancel)


STOPPED = {("imax", 2), ("hiflow", 4)}  # before a guided stage, and in one that looks back
STOPS = [
    pytest.param(name, n, marks=[] if (name, n) in STOPPED else [pytest.mark.slow])
    for name in ("imax", "feathered", "hiflow")
    for n in (2, 4)
]


@pytest.mark.parametrize(("name", "number"), STOPS)
def test_a_stopped_guided_render_resumes_to_the_same_bytes(
    tmp_path: Path, alone: Any, name: str, number: int
) -> None:
    path = tmp_path / "a.zarr"
    stop_after(number, path, RECIPES[name])
    resume(path)
    assert np.array_equal(pixels(path), pixels(alone(name)))


@pytest.mark.parametrize(
    "name",
    ["hiflow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("noisy", "resolution"))],
)
def test_a_guided_render_resumes_on_another_number_of_workers(
    tmp_path: Path, alone: Any, name: str
) -> None:
    path = tmp_path / "a.zarr"
    stop_after(5 if name == "hiflow" else 4, path, RECIPES[name] | {"workers": 2})
    resume(path, workers=3)
    assert grey_levels(pixels(path), pixels(alone(name))) <= GREY_LEVELS


@pytest.mark.parametrize(
    ("off", "plain"),
    [
        (guided("ultraimage", STAGES, mode="resolution", strength=0.0), "direct"),
        pytest.param(
            guided("ultraimage", STAGES, mode="resolution", schedule="off"),
            "direct",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            guided("ultraimage", PLACED, mode="view", share=0.0),
            "direct",
            marks=pytest.mark.slow,
        ),
        (guided("hiflow", RESTARTED, align=[0.0], accelerate=0.0) | SQUARE, "ntk"),
    ],
    ids=["strength", "schedule", "view", "hiflow"],
)
def test_a_guide_that_is_off_is_the_plain_method_bit_for_bit(
    tmp_path: Path, alone: Any, off: dict[str, Any], plain: str
) -> None:
    draw(tmp_path / "off.zarr", **off)
    assert np.array_equal(pixels(tmp_path / "off.zarr"), pixels(alone(plain)))


def test_the_low_band_of_a_guided_picture_is_its_guides(tmp_path: Path) -> None:
    options = {"mode": "resolution", "schedule": "constant", "half_token": False}
    draw(tmp_path / "a.zarr", **guided("ultraimage", STAGES, **options))
    made, g = (latents(tmp_path / "a.zarr", name) for name in ("1", "1-guide"))
    bands = (Band(0, made.shape[-2]),)
    low, wanted = haar(solo(), made, bands), haar(solo(), g, bands)
    assert (low - wanted).abs().max() <= EXACT_FLOAT32 * wanted.abs().max()
    assert (made - g).abs().max() > CONTROL


def test_a_view_stays_where_it_is_put_and_the_rest_is_painted(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    options = {"form": "projected", "schedule": "constant", "top": 1 / 3, "left": 0.0}
    draw(path, **guided("ultraimage", PLACED, mode="view", **options))
    made, g, small = (latents(path, name) for name in ("1", "1-guide", "0"))
    inside = (..., slice(16, 48), slice(0, 8))
    assert torch.equal(g[inside], small)
    assert g[..., :16, :].abs().max() == 0
    low, wanted = (haar(solo(), x[inside], (Band(0, 32),)) for x in (made, g))
    assert (low - wanted).abs().max() <= EXACT_FLOAT32 * wanted.abs().max()
    assert made[..., :16, :].abs().max() > CONTROL


def test_the_large_canvas_may_have_a_prompt_of_its_own(tmp_path: Path, alone: Any) -> None:
    options = RECIPES["noisy"]["method_options"]
    for name, prompt in (("same", small_spec(tmp_path).prompt), ("other", "green hills at noon")):
        fields = RECIPES["noisy"] | {"method_options": options | {"canvas_prompt": prompt}}
        draw(tmp_path / f"{name}.zarr", **fields)
    plain, same, other = (alone("noisy"), tmp_path / "same.zarr", tmp_path / "other.zarr")
    assert np.array_equal(pixels(same), pixels(plain))
    assert torch.equal(latents(other, "0"), latents(plain, "0"))
    assert grey_levels(pixels(other), pixels(plain)) > GREY_LEVELS


def test_every_steps_x0_is_kept_for_the_stage_that_follows_it(alone: Any) -> None:
    store = Store.open(alone("hiflow"))
    kept = {array.name: array.shape for array in store.layout.latents}
    assert kept["0-clean"] == (3, 16, 1, 32, 8)
    assert "1-clean" not in kept
    # x and, of the guided stage, what its last step remembers.
    assert kept["0"][1] == 16
    assert kept["1"][1] == 32


@pytest.mark.parametrize(
    "name",
    ["sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flux2", "wan"))],
)
def test_every_kind_of_model_is_guided_alike_on_bands(tmp_path: Path, name: str) -> None:
    """Tokens of one cell, cells of a UNet, frames of a clip."""
    gallery = Gallery(tmp_path)
    size = {"height": 2 * gallery.arguments(name)["height"], "width": 128}
    fields = size | {"method": "imax", "stages": STAGES}
    one, two = (gallery.fresh(name, workers=workers, **fields) for workers in (1, 2))
    assert grey_levels(one.pixels_THWC, two.pixels_THWC) <= GREY_LEVELS
