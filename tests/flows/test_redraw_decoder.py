"""Pictures that are redrawn, and then enlarged by a decoder: any workers make the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frieze.renderer import RenderSpec, render
from frieze.renderer.errors import FriezeError
from frieze.renderer.planning.plan import plan
from support.command_line import frieze
from support.drawing import grey_levels, pixels
from tolerances import GREY_LEVELS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Steps of grey."""
    values = np.arange(64, dtype=np.uint8)[:, None] // 8 * 24 + np.zeros(64, np.uint8)
    Image.fromarray(values).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def spec(source: Path, **fields: Any) -> RenderSpec:
    asked = {"upscale": str(source), "creativity": 0.2, "decoder": "infgen", "local": True}
    sides = {"height": 320, "width": 320, "chunk": 64, "num_inference_steps": 2}
    return RenderSpec.model_validate(asked | sides | fields)


def test_the_models_own_decoder_enlarges_what_is_redrawn_unless_told_otherwise(
    tmp_path: Path, source: Path
) -> None:
    words = ["upscale", str(source), "--with", "render", "--size", "320x320", "--dry-run"]
    shown = frieze(*words)
    assert "stage 1   256 x 256 px, " in shown.output
    assert "InfGen from 256 x 256 px" in shown.output
    shown = frieze(*words, "--decoder", "none")
    assert "InfGen" not in shown.output
    assert "stage 1   320 x 320 px, " in shown.output
    with pytest.raises(FriezeError, match="has no decoder of its own"):
        plan(spec(source, model="demo-unet"))
    for number, more in enumerate(({}, {"workers": 3}, {"creativity": 0.9})):
        render(spec(source, out=str(tmp_path / f"{number}.zarr"), **more))
    drawn = [pixels(tmp_path / f"{number}.zarr") for number in range(3)]
    assert grey_levels(drawn[0], drawn[1]) <= GREY_LEVELS
    assert grey_levels(drawn[0], drawn[2]) > GREY_LEVELS, "control"
