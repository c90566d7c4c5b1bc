"""Edits together with what a method does to attention: windows, regions, decay, concentration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import checkpoints
from frieze.renderer import resume
from support.drawing import PROMPT, draw, grey_levels, pixels, small_spec, stop_after
from tolerances import GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]
OTHER = "a white moon over green hills at night"
Draw = Callable[..., np.ndarray]
# A checkpoint, None for the demo's, and a picture beyond its trained size by a method that changes
# its attention; with a clip one longer than it was trained on.
CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "windows": (
        "sdxl-deep",
        {"height": 256, "width": 128, "method": "hidiffusion", "guidance_scale": 5.0},
    ),
    "cascade with a mask": (
        "sdxl-deep",
        {
            "num_inference_steps": 2,
            "height": 352,
            "width": 160,
            "method": "cinescale",
            "guidance_scale": 5.0,
            "negative_prompt": "snow",
            "edit_stage": 2,
        },
    ),
    "concentration": (
        None,
        {"height": 512, "width": 128, "method": "eaac", "stages": [{"scale": 1.0}]},
    ),
    "decay": (
        "wan",
        {
            "height": 64,
            "width": 32,
            "num_frames": 13,
            "method": "ultravico",
            "method_options": {"alpha": 0.05},
        },
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("edits")
    for name in ("sdxl-deep", "wan"):
        checkpoints.build(name, made / name)
    (made / "wan" / "frieze.json").write_text('{"training_frames": 5}')
    return made


@pytest.fixture
def asked(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A case's fields; its masks are right.png, which fades, and black.png."""
    name, fields = CASES[request.param]
    size = (fields["width"], fields["height"])
    fading = np.linspace(-1, 2, size[0])[None].repeat(size[1], 0).clip(0, 1)
    for mask, values in {"right": fading, "black": 0 * fading}.items():
        Image.fromarray(np.uint8(255 * values)).save(tmp_path / f"{mask}.png")
    more = {} if name is None else {"model": str(folder / name)}
    if fields["method"] == "cinescale":
        more["mask"] = str(tmp_path / "right.png")
    return {"num_inference_steps": 2} | fields | more


@pytest.fixture
def drawn(tmp_path: Path, asked: dict[str, Any]) -> Draw:
    def make(mask: str = "", prompt: str = OTHER, **fields: Any) -> np.ndarray:
        out = tmp_path / f"{len(list(tmp_path.glob('*.zarr')))}.zarr"
        edits = {"edit": [f"{tmp_path / mask}.png={prompt}"]} if mask else {"edit_stage": 1}
        draw(out, **asked | edits | fields)
        return pixels(out)

    return make


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(name, marks=[] if name in ("windows", "decay") else pytest.mark.slow)
        for name in CASES
    ],
    indirect=True,
)
def test_edits_hold_under_every_change_of_attention(
    drawn: Draw, asked: dict[str, Any], tmp_path: Path
) -> None:
    """On any ranks, after a stop, and where an edit asks for what is drawn anyway."""
    plain, edited = drawn(), drawn("right")
    assert grey_levels(edited, plain) > 10 * GREY_LEVELS, "control"
    assert np.array_equal(drawn("black"), plain)
    assert grey_levels(drawn("right", PROMPT), plain) <= GREY_LEVELS
    assert grey_levels(drawn("right", workers=2), edited) <= GREY_LEVELS
    path = tmp_path / "stopped.zarr"
    stop_after(small_spec(path, **asked, edit=[f"{tmp_path / 'right.png'}={OTHER}"]), 1)
    (tmp_path / "right.png").unlink()
    resume(path)
    assert np.array_equal(pixels(path), edited)
