"""CineScale on U-Nets: the authors' networks whole, its cascade, and whole renders on any ranks."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import checkpoints
from frieze.cluster.attention import AttentionChange, AttentionShape
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import Event, RenderCancelledError, plan, render, resume
from frieze.renderer.errors import MediaError, PlanError, SpecError
from frieze.renderer.extrapolation.convolutions import dilated
from frieze.renderer.extrapolation.method import StepContext
from frieze.renderer.extrapolation.skip_filter import FreeU, free_u
from frieze.renderer.extrapolation.windows import fused_shape
from frieze.renderer.spec.render_spec import RenderSpec
from support.drawing import draw, grey_levels, pixels, small_spec
from support.shared import Once
from support.unets import cuts, unet
from support.vectors import ROUNDED, difference, noise, vectors
from tolerances import AMPLE, EXACT_FLOAT64, GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]

# ---- the authors' networks


@dataclass
class Fused:
    """Every self-attention in fusion, its windows drawn as the authors' random numbers had them."""

    axes: Any
    scale: tuple[float, float]
    draw: Any
    layers: list[Any] = field(default_factory=list)  # with their windows, in order

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        def shape(rows: int, columns: int) -> AttentionShape:
            options = {"axes": self.axes, "separable": False}
            made = fused_shape(rows, columns, self.scale, self.draw, **options)
            edges = [
                [w.rows.start, w.rows.stop, w.columns.start, w.columns.stop]
                for w in made.windows.windows
            ]
            self.layers.append((layer, [rows, columns], edges))
            return made

        return AttentionChange(q_BHSD, k_BHSD, shape=shape)


def drawn(
    vector: dict[str, Any],
    bands: tuple[Band, ...],
    still: bool = False,
    layers: list[Any] | None = None,
) -> Tensor:
    network, marks = unet(vector["model"])
    size, times = tuple(vector["latent"]), max(vector["pixels"]) // 1024
    x, text = noise((1, 4, *size), vector["seed"]), noise((1, 5, 8), vector["seed"] + 1)

    def rank(comm: Comm) -> Tensor:
        draw = None if still else random.Random(vector["python_random_seed"]).randint
        modifier, band = Fused(vector["blur"], (times, times), draw), bands[comm.rank]
        with (
            torch.no_grad(),
            band_mode(comm, bands, marks=marks, canvas=Canvas(1, *size), modifier=modifier),
            conv_shape(dilated(vector["dilation"])),
        ):
            out: Tensor = network(x[:, :, band.start : band.stop], 500.0, text).sample
            if layers is not None:
                layers.extend(modifier.layers)
            return out

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 2)


# The first fuses channels too; by height and width alone a layer does in `extrapolation/`.
@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(vector, marks=pytest.mark.slow if index else [])
        for index, vector in enumerate(vectors("fusion_unet"))
    ],
)
def test_fusion_in_whole_unets_is_freescales(vector: dict[str, Any]) -> None:
    layers: list[Any] = []
    whole = drawn(vector, (Band(0, vector["latent"][0]),), layers=layers)
    assert layers == [
        (each["layer"], each["grid"], each["rows_and_columns"])
        for each in vector["layers_in_order"]
    ]
    for bands in cuts(vector["latent"][0], 16):
        made = drawn(vector, bands)
        assert difference(made, vector["output"]) <= ROUNDED, bands
        assert float((made - whole).abs().max()) <= EXACT_FLOAT64, bands
    assert difference(drawn(vector, bands, still=True), vector["output"]) > 10 * ROUNDED


# ---- the cascade


MASK = "of 5 x 11"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("sd15-deep", "sd21-deep", "sdxl-deep", "sdxl-turbo-deep", "sdxl")
    return {name: checkpoints.build(name, tmp_path_factory.mktemp(name)) for name in names}


def spec(folder: Path | str, side: int, **fields: Any) -> RenderSpec:
    defaults = {"height": side, "width": side, "num_inference_steps": 50, "method": "cinescale"}
    return RenderSpec(**({"prompt": "x", "model": str(folder)} | defaults | fields))


def test_stages_restart_where_the_released_code_does(folders: dict[str, Path]) -> None:
    """Tiny SDXL is trained at 128: 2x and 4x, from step 15 of 50, which is time 681."""
    made = plan(spec(folders["sdxl-deep"], 512))
    assert [stage.canvas.height for stage in made.stages] == [16, 32, 64]
    assert [stage.num_steps for stage in made.stages] == [50, 35, 35]
    assert [stage.levels[0].timestep for stage in made.stages[1:]] == [681.0, 681.0]
    assert made.painted == (0, 1)
    turbo = plan(spec(folders["sdxl-turbo-deep"], 256, num_inference_steps=4))
    assert [stage.num_steps for stage in turbo.stages] == [4, 2]
    wide = plan(spec(folders["sd15-deep"], 256, width=1024))
    assert [(s.canvas.height, s.canvas.width) for s in wide.stages][::2] == [(8, 32), (32, 128)]


def contexts(made: Any) -> list[list[StepContext]]:
    return [
        [
            StepContext.of(made.facts, 0, stage.canvas, stage.levels, stage=index, step=step)
            for step in range(stage.num_steps)
        ]
        for index, stage in enumerate(made.stages)
    ]


@pytest.mark.parametrize(
    ("name", "side", "num_steps", "expected"),
    [
        # Of 50 steps 15 to 34 are dilated, by the level; Turbo's all, by half of it.
        ("sdxl-deep", 512, 50, [(0, 50, 0), (20, 35, 2), (20, 35, 4)]),
        ("sd15-deep", 256, 10, [(0, 11, 0), (4, 8, 2)]),
        ("sdxl-turbo-deep", 512, 4, [(0, 4, 0), (0, 2, 0), (2, 2, 2)]),
    ],
)
def test_dilation_lasts_and_grows_as_published(
    folders: dict[str, Path], name: str, side: int, num_steps: int, expected: list[Any]
) -> None:
    made = plan(spec(folders[name], side, num_inference_steps=num_steps))
    assert made.method.convolutions is not None
    for of_stage, (last, steps, dilation) in zip(contexts(made), expected, strict=True):
        assert len(of_stage) == steps
        for context in of_stage:
            shape = made.method.convolutions.shape(context)
            found = {each.dilation for each in shape.convs.values()} if shape else set()
            assert found == ({dilation} if context.step < last else set()), context


def test_windows_follow_the_seed_the_step_and_the_layer(folders: dict[str, Path]) -> None:
    made = plan(spec(folders["sdxl-deep"], 512, width=1024))
    first, *_, last = contexts(made)
    windows = made.method.windows
    assert windows is not None
    assert windows(first[0], "a", 16, 32) is None
    drawn = [windows(last[i], layer, 64, 128) for i in (0, 1) for layer in "ab"]
    assert len(set(map(repr, drawn))) == 4
    assert windows(last[1], "b", 64, 128) == drawn[3]
    shape = drawn[0]
    assert isinstance(shape, AttentionShape)
    # The canvas' aspect, the longer side as trained: 8 x 16 of 64 x 128, 15 on either axis.
    assert {(len(w.rows), len(w.columns)) for w in shape.windows.windows} == {(8, 16)}
    assert len(shape.windows.windows) == 15 * 15
    assert shape.fusion is not None
    assert (shape.fusion.size, shape.fusion.axes, shape.fusion.coarse) == (15, "hwc", None)


def test_up_to_the_trained_size_it_is_the_plain_model(folders: dict[str, Path]) -> None:
    made = plan(spec(folders["sdxl-deep"], 128)).method
    slots = (made.windows, made.convolutions, made.skips, made.micro_conditioning)
    assert (len(made.stages), *slots) == (1, None, None, None, "canvas")


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("sdxl", {}, "is another U-Net"),
        ("sdxl-deep", {"height": 250}, "height 250 is no multiple of 32"),
        (
            "sd15-deep",
            {"height": 320, "width": 128, "workers": 3},
            "128 rows of a neighbour, and the lowest band has 64; use at most 2 workers",
        ),
        ("sdxl-deep", {"mask": "none.png"}, "none.png"),
        ("sdxl-deep", {"mask": MASK}, "is 5x11 pixels and the picture 256x256: a mask of the "),
        ("sdxl-deep", {"mask": MASK, "method": "imax"}, "treats all regions alike; .* cinescale"),
        ("sdxl-deep", {"method_options": {"detail": 0}}, "detail of cinescale = 0; .* more than 0"),
        ("sdxl-deep", {"method_options": {"fusion": "h"}}, "hwc or hw or wc or none"),
    ],
)
def test_what_it_cannot_draw_is_refused_with_what_works(
    folders: dict[str, Path], mask: str, name: str, fields: dict[str, Any], words: str
) -> None:
    if fields.get("mask") == MASK:
        fields = fields | {"mask": mask}
    with pytest.raises((PlanError, SpecError, MediaError), match=words) as caught:
        plan(spec(folders.get(name, name), 256, **fields))
    assert "\n" not in str(caught.value)


# ---- whole renders


def fields(folder: Path, name: str = "sdxl-deep", **own: Any) -> dict[str, Any]:
    """Two stages, of four steps and of three; one of these is dilated, all are fused."""
    is_xl = name.startswith("sdxl")
    size = {"height": 352, "width": 160} if is_xl else {"height": 320, "width": 128}
    # Turbo's dilation counts by twice the trained size; it is drawn without guidance.
    size |= {"height": 512, "guidance_scale": 0.0} if "turbo" in name else {}
    return (
        {
            "model": str(folder),
            "num_inference_steps": 4,
            "method": "cinescale",
            "guidance_scale": 5.0,
        }
        | size
        | own
    )


def save_mask(path: Path) -> str:
    values = np.zeros((11, 5), np.uint8)
    values[2:5, 1:4] = 255
    Image.fromarray(values).save(path)
    return str(path)


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_mask(tmp_path_factory.mktemp("mask") / "mask.png")


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path], mask: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pictures of one rank, each drawn once."""
    folder, once = tmp_path_factory.mktemp("alone"), Once()

    def drawn(name: str, **options: Any) -> np.ndarray:
        words = "-".join(f"{key}={value}" for key, value in options.items())
        path = folder / f"{name}-{words}.zarr"
        own = fields(folders[name], name, method_options=options)
        own |= {"mask": mask} if name == "sdxl-deep" else {}
        once(str(path), lambda: draw(path, **own))
        return pixels(path)

    return drawn


RELEASED = {"fast": True, "fusion": "hw", "jitter": "released"}


# One step of each layout on every mesh is `flows/test_methods_at_seams.py`'s, with its control;
# below two ranks draw the whole second stage.
@pytest.mark.parametrize(
    ("name", "options", "ranks"),
    [
        pytest.param("sdxl-deep", {}, {"workers": 2, "ulysses": 2}, marks=pytest.mark.slow),
        pytest.param("sdxl-deep", {}, {"workers": 2}, marks=pytest.mark.slow),
        pytest.param("sdxl-deep", {}, {"workers": 3}, marks=pytest.mark.slow),
        # Its deepest maps have five rows: two bands of two, or three where nothing is dilated.
        pytest.param("sd15-deep", RELEASED, {"workers": 2}, marks=pytest.mark.slow),
        pytest.param(
            "sd21-deep", RELEASED | {"dilation": False}, {"workers": 3}, marks=pytest.mark.slow
        ),
        pytest.param("sdxl-turbo-deep", {}, {"workers": 3}, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_ranks_draws_the_same_picture(
    tmp_path: Path,
    folders: dict[str, Path],
    mask: str,
    alone: Any,
    name: str,
    options: dict[str, Any],
    ranks: dict[str, Any],
) -> None:
    """Bands of unequal heights; ring and Ulysses; both halves of the guidance; not square."""
    whole = alone(name, **options)
    own = fields(folders[name], name, method_options=options, **ranks)
    draw(tmp_path / "a.zarr", **own | ({"mask": mask} if name == "sdxl-deep" else {}))
    assert grey_levels(pixels(tmp_path / "a.zarr"), whole) <= GREY_LEVELS


@pytest.mark.slow  # `extrapolation/test_skip_filter.py` has the filter on bands and its control
def test_control_a_band_that_filters_its_skips_alone_draws_another_picture(
    tmp_path: Path,
    folders: dict[str, Path],
    mask: str,
    alone: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on_its_own(factors: FreeU, comm: Comm, bands: tuple[Band, ...]) -> Any:
        return free_u(factors, solo(), bands[comm.rank : comm.rank + 1])

    whole = alone("sdxl-deep")
    monkeypatch.setattr("frieze.renderer.worker.network.free_u", on_its_own)
    draw(tmp_path / "a.zarr", **fields(folders["sdxl-deep"], mask=mask, workers=2))
    assert grey_levels(pixels(tmp_path / "a.zarr"), whole) > GREY_LEVELS


@pytest.mark.parametrize(
    "off",
    [
        pytest.param(off, id=next(iter(off)), marks=pytest.mark.slow if index > 1 else [])
        for index, off in enumerate(
            (
                {"free_u": False},
                {"inside": 2.0, "outside": 2.0},
                {"fusion": "none"},
                {"dilation": False},
                {"size_told": "canvas"},
                {"jitter": "none"},
            )
        )
    ],
)
def test_control_every_part_changes_the_picture(alone: Any, off: dict[str, Any]) -> None:
    assert not np.array_equal(alone("sdxl-deep", **off), alone("sdxl-deep"))


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (4, 2),
        *(pytest.param(*stop, marks=pytest.mark.slow) for stop in ((4, 1), (5, 2), (5, 1), (6, 1))),
    ],
)
def test_a_stopped_render_goes_on_to_the_same_bytes(
    tmp_path: Path, folders: dict[str, Path], alone: Any, number: int, workers: int
) -> None:
    """Before the fused and dilated step, after it, in fused ones, and on other ranks.

    The mask is gone by then, and the store has it.
    """
    path, cancel, seen = tmp_path / "a.zarr", threading.Event(), []

    def listen(event: Event) -> None:
        seen.append(event.kind)
        if seen.count("step") == number:
            cancel.set()

    own = fields(folders["sdxl-deep"], mask=save_mask(tmp_path / "mask.png"))
    with pytest.raises(RenderCancelledError):
        render(small_spec(path, **own), on_event=listen, cancel=cancel)
    (tmp_path / "mask.png").unlink()
    resume(path, workers=workers)
    whole = alone("sdxl-deep")
    assert grey_levels(pixels(path), whole) <= (GREY_LEVELS if workers > 1 else 0)


@pytest.mark.slow  # its plan is that of the plain model: see above
@pytest.mark.parametrize("layout", checkpoints.DEEP)
def test_at_the_trained_size_the_picture_is_the_plain_models(
    tmp_path: Path, folders: dict[str, Path], layout: str
) -> None:
    for name in ("none", "cinescale"):
        own = fields(folders[layout], layout) | {"height": 128, "width": 128, "method": name}
        draw(tmp_path / f"{name}.zarr", **own)
    assert np.array_equal(pixels(tmp_path / "none.zarr"), pixels(tmp_path / "cinescale.zarr"))
