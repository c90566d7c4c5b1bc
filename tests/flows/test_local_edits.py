"""Whole renders whose parts have prompts of their own: by mask, stage, ranks, and after a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frieze.renderer import (
    Event,
    FingerprintError,
    PlanError,
    RenderCancelledError,
    render,
    resume,
)
from frieze.renderer.errors import FriezeError, MediaError
from frieze.renderer.store.store import Store
from support.command_line import frieze
from support.drawing import CASCADE, draw, grey_levels, pixels, small_spec, stop_after
from tolerances import GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")

OTHER = "a white moon over green hills at night"
SMALL: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "chunk": 32}
Draw = Callable[..., np.ndarray]


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, str]:
    """Files by what they are, of another size than the picture."""
    columns = np.linspace(-1, 2, 96)[None].repeat(96, 0)
    kinds = {"black": 0 * columns, "white": 0 * columns + 1, "right": columns}
    for name, mask in kinds.items():
        Image.fromarray(np.uint8(255 * mask.clip(0, 1))).save(tmp_path / f"{name}.png")
    return {name: str(tmp_path / f"{name}.png") for name in kinds}


@pytest.fixture
def drawn(tmp_path: Path) -> Draw:
    def make(**fields: Any) -> np.ndarray:
        out = tmp_path / f"{len(list(tmp_path.glob('*.zarr')))}.zarr"
        draw(out, **(SMALL | fields))
        return pixels(out)

    return make


def test_black_is_nothing_white_is_the_prompt_and_the_rest_lies_between(
    drawn: Draw, masks: dict[str, str]
) -> None:
    plain, other = drawn(), drawn(prompt=OTHER)
    assert np.array_equal(drawn(edit=[f"{masks['black']}={OTHER}"]), plain)
    assert np.array_equal(drawn(edit=[f"{masks['white']}={OTHER}"]), other)
    edited = drawn(edit=[f"{masks['right']}={OTHER}"])
    half = slice(0, 64), slice(64, 128)
    near = [np.abs(edited[:, at].astype(int) - plain[:, at]).mean() for at in half]
    far = [np.abs(edited[:, at].astype(int) - other[:, at]).mean() for at in half]
    assert near[0] < far[0]
    assert near[1] > far[1]
    # Twice the same mask: each has half of it, and together all of what one has.
    twice = drawn(edit=[f"{masks['white']}={OTHER}"] * 2)
    assert grey_levels(twice, other) <= GREY_LEVELS


@pytest.mark.parametrize(
    "fields",
    [
        # Two bands with edits are drawn in `test_edits_with_methods.py` too.
        pytest.param({"workers": 2}, id="workers", marks=pytest.mark.slow),
        pytest.param({"workers": 2, "ulysses": 2}, id="workers-ulysses"),
        pytest.param({"workers": 2, "guidance_ranks": 2}, id="workers-guidance_ranks"),
    ],
)
def test_ranks_draw_the_same(drawn: Draw, masks: dict[str, str], fields: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"edit": [f"{masks['right']}={OTHER}"]}
    if "guidance_ranks" in fields:
        asked |= {"negative_prompt": "snow", "true_cfg_scale": 2.0}
    one = drawn(**asked)
    assert grey_levels(drawn(**asked, **fields), one) <= GREY_LEVELS
    assert grey_levels(drawn(**asked | {"edit": ()}), one) > 10 * GREY_LEVELS


@pytest.mark.slow
def test_a_cascade_is_edited_from_a_stage_on_and_resumed_without_the_mask(
    tmp_path: Path, masks: dict[str, str]
) -> None:
    small = CASCADE | {"height": 256, "width": 64, "chunk": 32}
    asked = small | {"edit": [f"{masks['right']}={OTHER}"], "edit_stage": 2}
    # The mask's shape is the picture's.
    Image.open(masks["right"]).resize((64, 256)).save(masks["right"])
    draw(tmp_path / "whole.zarr", **asked)
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and (event.stage, event.step) == (2, 1):
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(small_spec(tmp_path / "stopped.zarr", **asked), on_event=listen, cancel=cancel)
    Path(masks["right"]).unlink()
    resume(tmp_path / "stopped.zarr")
    assert np.array_equal(pixels(tmp_path / "stopped.zarr"), pixels(tmp_path / "whole.zarr"))
    draw(tmp_path / "plain.zarr", **small)
    # The picture that the second stage enlarges is the plain one's.
    enlarged, plain = (
        Store.open(tmp_path / f"{name}.zarr").load_latents(2, 0, slice(0, 128))
        for name in ("whole", "plain")
    )
    assert np.array_equal(enlarged, plain)
    assert not np.array_equal(pixels(tmp_path / "whole.zarr"), pixels(tmp_path / "plain.zarr"))


def test_a_store_is_not_gone_on_with_under_another_mask_or_prompt(
    tmp_path: Path, masks: dict[str, str]
) -> None:
    spec = small_spec(tmp_path / "a.zarr", **SMALL, edit=[f"{masks['right']}={OTHER}"])
    stop_after(spec, 1)
    for edit in (f"{masks['white']}={OTHER}", f"{masks['right']}=snow"):
        other = spec.model_validate(spec.model_dump() | {"edit": [edit]})
        with pytest.raises(FingerprintError, match=r"starts_from|picture\.edit"):
            render(other, continued=True)
    moved = Path(masks["right"]).rename(tmp_path / "moved.png")
    render(spec.model_validate(spec.model_dump() | {"edit": [f"{moved}={OTHER}"]}), continued=True)


def test_a_lost_copy_of_a_mask_is_taken_from_its_file_again(
    tmp_path: Path, masks: dict[str, str], drawn: Draw
) -> None:
    asked: dict[str, Any] = SMALL | {"edit": [f"{masks['right']}={OTHER}"]}
    stop_after(small_spec(tmp_path / "a.zarr", **asked), 1)
    (copy,) = {path.parent for path in (tmp_path / "a.zarr").rglob("0-edits")}
    for file in (copy / "0-edits" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    told = frieze("verify", str(tmp_path / "a.zarr"))
    assert f"is empty: it is taken from {masks['right']} again" in told.stdout
    resume(tmp_path / "a.zarr")
    assert np.array_equal(pixels(tmp_path / "a.zarr"), drawn(**asked))


def test_what_cannot_be_edited_is_one_line_before_any_work(
    tmp_path: Path, masks: dict[str, str]
) -> None:
    (tmp_path / "empty.png").touch()
    wide = tmp_path / "wide.png"
    Image.new("L", (96, 64)).save(wide)
    Image.new("L", (8, 8)).save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("L", (8, 8), 255)]
    )
    before = set(tmp_path.iterdir())
    cases: list[tuple[type[FriezeError], str, dict[str, Any]]] = [
        (PlanError, "is 96x64 pixels and the picture 128x128: .* as 128x128 or", {"mask": wide}),
        (MediaError, "there is no file .*gone.png", {"mask": tmp_path / "gone.png"}),
        (MediaError, "empty.png is empty", {"mask": tmp_path / "empty.png"}),
        (PlanError, "clip of 2 frames; a picture is wanted$", {"mask": tmp_path / "moving.gif"}),
        (PlanError, "edit_stage 3: the render has one stage", {"edit_stage": 3}),
    ]
    for kind, reason, case in cases:
        mask = case.pop("mask", masks["right"])
        fields = SMALL | {"method": "none"} | case
        with pytest.raises(kind, match=reason) as caught:
            render(small_spec(tmp_path / "a.zarr", **fields, edit=[f"{mask}={OTHER}"]))
        assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_the_command_line_and_the_plan_tell_of_edits(masks: dict[str, str]) -> None:
    words = ("plan", "a coast", "--size", "256x256", "--edit", f"{masks['right']}=a lighthouse")
    told = frieze(*words)
    assert told.exit_code == 0
    assert f"edit      {masks['right']}: a lighthouse" in told.stdout
    for wrong in (("--edit", "m.png"), ("--edit", "=x"), ("--edit-stage", "2")):
        refused = frieze("plan", "a coast", *wrong)
        assert refused.exit_code == 2
        assert len(refused.stderr.strip().splitlines()) == 1
