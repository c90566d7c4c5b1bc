"""Whole renders of pictures that are redrawn in part: what stays, to the bit, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from frieze.renderer import (
    Event,
    FingerprintError,
    RenderCancelledError,
    RenderSpec,
    render,
    resume,
)
from frieze.renderer.errors import FriezeError
from frieze.renderer.spec.render_spec import parse
from support.command_line import frieze
from support.drawing import CASCADE, draw, grey_levels, pixels, small_spec, stop_after
from tolerances import GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")

SMALL: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "chunk": 32}
INSIDE = slice(40, 88)  # rows and columns that are redrawn
FEATHER = 8
Draw = Callable[..., np.ndarray]


def outside(margin: int = FEATHER) -> np.ndarray:
    """Where nothing is redrawn, so far from what is."""
    far = np.ones((128, 128), bool)
    far[
        INSIDE.start - margin : INSIDE.stop + margin, INSIDE.start - margin : INSIDE.stop + margin
    ] = False
    return far


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Pictures of 8 and 16 bits and masks, by name."""
    noise = np.random.default_rng(2).integers(0, 65536, (128, 128, 3), np.uint16)
    Image.fromarray(np.uint8(noise >> 8)).save(tmp_path / "init.png")
    tifffile.imwrite(tmp_path / "init.tif", noise, photometric="rgb")
    Image.fromarray(np.uint8(noise[:96, :64] >> 8)).save(tmp_path / "small.png")
    mask = np.zeros((128, 128), np.uint8)
    mask[INSIDE, INSIDE] = 255
    for name, values in {"mask": mask, "white": 0 * mask + 255, "black": 0 * mask}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.new("L", (96, 64), 255).save(tmp_path / "other.png")
    return {path.name: str(path) for path in tmp_path.iterdir()}


@pytest.fixture
def drawn(tmp_path: Path) -> Draw:
    def make(**fields: Any) -> np.ndarray:
        out = tmp_path / f"{len(list(tmp_path.glob('*.zarr')))}.zarr"
        draw(out, **(SMALL | fields))
        return pixels(out)

    return make


@pytest.mark.parametrize(
    ("init", "bits", "ranks"),
    [("init.png", 8, (1, 2, 3)), ("init.tif", 16, (1,)), ("init.png", 16, (2,))],
)
def test_pixels_outside_of_the_mask_are_those_given(
    drawn: Draw, files: Mapping[str, str], init: str, bits: int, ranks: tuple[int, ...]
) -> None:
    asked: dict[str, Any] = {"init": files[init], "mask": files["mask.png"], "feather": FEATHER}
    is_tiff = init.endswith("tif")
    given = tifffile.imread(files[init]) if is_tiff else np.asarray(Image.open(files[init]))
    scale = 257 if bits == 16 and not is_tiff else 1
    expected = given.astype(int) * scale
    found = [drawn(**asked, bits=bits, workers=workers).astype(int) for workers in ranks]
    for each in found:
        assert np.array_equal(each[outside()], expected[outside()])
        assert grey_levels(each, found[0]) <= GREY_LEVELS
    # Within it they are drawn, and around it blended.
    level = 2**bits / 256
    assert np.abs(found[0][INSIDE, INSIDE] - expected[INSIDE, INSIDE]).mean() > 20 * level
    ring = ~outside() & outside(0)
    assert np.mean(found[0][ring] == expected[ring]) < 0.5
    # Without a mask nothing stays.
    plain = drawn(**{**asked, "mask": None, "feather": None}, bits=bits)
    assert np.mean(plain[outside()] == expected[outside()]) < 0.1


def test_files_hold_the_pixels_that_were_given(tmp_path: Path, files: Mapping[str, str]) -> None:
    """As others read them: PNG by Pillow, TIFF of 16 bits by tifffile."""
    asked = SMALL | {"mask": files["mask.png"], "feather": FEATHER, "num_inference_steps": 1}
    draw(tmp_path / "out.png", **asked, init=files["init.png"])
    png = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(png[outside()], np.asarray(Image.open(files["init.png"]))[outside()])
    draw(tmp_path / "deep.tif", **asked, init=files["init.tif"], bits=16)
    tif = tifffile.imread(tmp_path / "deep.tif")
    assert tif.dtype == np.uint16
    assert np.array_equal(tif[outside()], tifffile.imread(files["init.tif"])[outside()])


def test_black_is_the_picture_and_white_the_picture_redrawn(
    drawn: Draw, files: Mapping[str, str]
) -> None:
    init = {"init": files["init.png"]}
    given = np.asarray(Image.open(files["init.png"]))
    assert np.array_equal(drawn(**init, mask=files["black.png"]), given)
    assert np.array_equal(drawn(**init, mask=files["white.png"]), drawn(**init))
    half = drawn(**init, mask=files["mask.png"], feather=0)
    assert np.array_equal(half[outside(0)], given[outside(0)])
    # A mask of another size is as good as one of the same, when told.
    told = drawn(**init, mask=files["other.png"], resize_mask=True)
    assert np.array_equal(told, drawn(**init))


def test_what_stays_is_known_to_what_is_drawn(drawn: Draw, files: Mapping[str, str]) -> None:
    """Latents outside are held at every step: what is inside follows from what is around it."""
    asked: dict[str, Any] = {"init": files["init.png"], "strength": 1.0, "feather": 0}
    inside = drawn(**asked, mask=files["mask.png"])[INSIDE, INSIDE].astype(int)
    alone = drawn(**asked, mask=files["white.png"])[INSIDE, INSIDE].astype(int)
    assert np.abs(inside - alone).mean() > 5


def test_a_placed_picture_stays_and_the_rest_is_drawn(
    tmp_path: Path, drawn: Draw, files: Mapping[str, str]
) -> None:
    asked: dict[str, Any] = {"init": files["small.png"], "place": "32,16", "feather": FEATHER}
    given = np.asarray(Image.open(files["small.png"]))
    one = drawn(**asked)
    kept = one[16 + FEATHER : 112 - FEATHER, 32 + FEATHER : 96 - FEATHER]
    assert np.array_equal(kept, given[FEATHER:-FEATHER, FEATHER:-FEATHER])
    edge = one[16 : 16 + 2, 32:96].astype(int) - given[:2]
    assert np.abs(edge).mean() > 1
    assert grey_levels(drawn(**asked, workers=3), one) <= GREY_LEVELS
    # At an edge of the canvas there is nothing to fade into.
    corner = drawn(**asked | {"place": "0,0"})
    assert np.array_equal(corner[: 96 - FEATHER, : 64 - FEATHER], given[:-FEATHER, :-FEATHER])


def test_a_cascade_is_resumed_without_its_files_to_the_same_bytes(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    small = CASCADE | {"height": 256, "width": 64, "chunk": 32, "workers": 2}
    asked = small | {"init": files["small.png"], "place": "0,96", "mask": None, "feather": 4}
    draw(tmp_path / "whole.zarr", **asked)
    for stage in (1, 2):
        spec = small_spec(tmp_path / f"{stage}.zarr", **asked)
        _stop_in(spec, stage)
    before = {name: Path(name).read_bytes() for name in (files["small.png"],)}
    Path(files["small.png"]).unlink()
    for stage in (1, 2):
        resume(tmp_path / f"{stage}.zarr", workers=2)
        assert np.array_equal(pixels(tmp_path / f"{stage}.zarr"), pixels(tmp_path / "whole.zarr"))
    Path(files["small.png"]).write_bytes(before[files["small.png"]])
    # A copy that is lost is taken from the file again.
    _stop_in(small_spec(tmp_path / "lost.zarr", **asked), 2)
    (copy,) = (path for path in (tmp_path / "lost.zarr").rglob("1-init"))
    for file in (copy / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    told = frieze("verify", str(tmp_path / "lost.zarr")).stdout
    assert f"is empty: it is taken from {files['small.png']} again" in told
    resume(tmp_path / "lost.zarr", workers=2)
    assert np.array_equal(pixels(tmp_path / "lost.zarr"), pixels(tmp_path / "whole.zarr"))


@pytest.mark.parametrize("scheduler", [None, "FlowMatchLCMScheduler"])
def test_steps_that_are_drawn_again_are_the_same_on_any_workers_and_after_a_stop(
    tmp_path: Path, files: Mapping[str, str], scheduler: str | None
) -> None:
    """With a solver that draws noise itself, too."""
    fields = {"num_inference_steps": 5, "chunk": 32, "scheduler": scheduler}
    placed = {"init": files["small.png"], "place": "32,16", "feather": FEATHER, "resamplings": 3}
    asked = SMALL | fields | placed
    names = {"one": {}, "three": {"workers": 3}, "once": {"resamplings": 1}}
    one, three, once = (
        (draw(tmp_path / f"{name}.zarr", **asked | more), pixels(tmp_path / f"{name}.zarr"))[1]
        for name, more in names.items()
    )
    assert grey_levels(three, one) <= GREY_LEVELS
    stop_after(small_spec(tmp_path / "stopped.zarr", **asked), 2)
    resume(tmp_path / "stopped.zarr")
    assert np.array_equal(pixels(tmp_path / "stopped.zarr"), one)
    assert grey_levels(once, one) > 2 * GREY_LEVELS, "control"
    assert np.array_equal(
        one[24:104, 40:88], np.asarray(Image.open(files["small.png"]))[8:-8, 8:-8]
    )


def _stop_in(spec: RenderSpec, stage: int) -> None:
    """Render, and stop after the first step of a stage."""
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and (event.stage, event.step) == (stage, 1):
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, on_event=listen, cancel=cancel)


def test_a_store_is_not_gone_on_with_under_another_mask_or_place(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    asked = SMALL | {"init": files["init.png"], "mask": files["mask.png"], "feather": FEATHER}
    spec = small_spec(tmp_path / "a.zarr", **asked)
    stop_after(spec, 1)
    for change in ({"mask": files["white.png"]}, {"feather": 4}, {"mask": None, "feather": None}):
        other = spec.model_validate(spec.model_dump() | change)
        with pytest.raises(FingerprintError, match=r"starts_from|feather|its fingerprint"):
            render(other, continued=True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"init": "init.png", "mask": "other.png"},
            r"mask .* is 96x64 pixels and the picture 128x128; .*resize_mask",
        ),
        (
            {"init": "small.png", "place": "80,0"},
            r"place '80,0': .*beyond 128x128; a size of 144x128 or more",
        ),
        ({"init": "small.png", "place": "1"}, r"place = '1': .*is not X,Y"),
        ({"init": "small.png", "place": "-1,0"}, r"is not X,Y"),
        ({"place": "0,0"}, r"place 0,0: .*give an init$"),
        ({"init": "init.png", "feather": 3}, r"feather 3: .*give an init with a mask$"),
        ({"resamplings": 2}, r"resamplings 2: .*give an init with a mask$"),
        (
            {"init": "small.png", "place": "0,0", "resamplings": 2, "cache": "0.1"},
            r"resamplings 2: cache 0\.1 reuses steps; leave it out",
        ),
        ({"resize_mask": True}, r"resize_mask True: .*give an init with a mask$"),
        ({"mask": "mask.png"}, r"mask .* treats all regions alike; .*give an init"),
        ({"init": "init.png", "mask": "gone.png"}, r"gone\.png"),
        ({"init": "init.png", "mask": "mask.png", "feather": 5000}, r"feather = 5000"),
    ],
)
def test_what_cannot_be_redrawn_is_one_line_before_any_work(
    tmp_path: Path, files: Mapping[str, str], fields: dict[str, Any], told: str
) -> None:
    named = {k: files.get(str(v), v) if k in ("init", "mask") else v for k, v in fields.items()}
    with pytest.raises((FriezeError, ValueError), match=told) as caught:
        render(parse(SMALL | named | {"local": True, "out": str(tmp_path / "a.zarr")}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.zarr").exists()
