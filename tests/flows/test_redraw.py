"""Pictures that are handed in and redrawn larger: by any workers, stopped, killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frieze.renderer import Event, RenderSpec, render, resume
from frieze.renderer.planning.plan import plan
from support.command_line import frieze
from support.drawing import grey_levels, pixels
from support.unfinished import kill_at, stop_at
from tolerances import GREY_LEVELS

SIDE = 64
# A transformer in one stage, whose picture is 4 times as long; a U-Net in two.
ONE: dict[str, Any] = {"model": "demo", "height": 256, "width": 256}
TWO: dict[str, Any] = {"model": "demo-unet", "height": 256, "width": 256}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red disc over blue hills."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    hills = rows > 40 + 6 * np.sin(columns / 7)
    disc = (rows - 18) ** 2 + (columns - 40) ** 2 < 81
    own = np.where(hills[..., None], (40, 60, 120), (230, 190, 160))
    path = tmp_path_factory.mktemp("source") / "a.png"
    Image.fromarray(np.where(disc[..., None], (200, 40, 30), own).astype(np.uint8)).save(path)
    return path


def spec(out: Path, source: Path, **fields: Any) -> RenderSpec:
    asked = {"out": str(out), "upscale": str(source), "creativity": 0.4, "local": True}
    return RenderSpec.model_validate(asked | {"num_inference_steps": 4, "chunk": 64} | fields)


def enlarged(source: Path) -> np.ndarray:
    """What an ordinary enlargement makes of it."""
    return np.asarray(Image.open(source).resize((256, 256), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "fields",
    [
        ONE | {"guide": "low-band", "prompt": "a red sun"},
        pytest.param(TWO | {"guide": "hiflow"}, marks=pytest.mark.slow),  # resumed below
        pytest.param(ONE | {"guide": "detail"}, marks=pytest.mark.slow),
        pytest.param(TWO | {"guide": "detail", "attend": "windows"}, marks=pytest.mark.slow),
    ],
    ids=["low-band", "hiflow-in-two", "detail", "windows-in-two"],
)
def test_any_number_of_workers_redraws_the_same(
    tmp_path: Path, source: Path, fields: dict[str, Any]
) -> None:
    drawn = []
    for number, more in enumerate(({}, {"workers": 3}, {"seed": 8})):
        render(spec(tmp_path / f"{number}.zarr", source, **fields | more))
        drawn.append(pixels(tmp_path / f"{number}.zarr"))
    assert grey_levels(drawn[0], drawn[1]) <= GREY_LEVELS
    assert grey_levels(drawn[0], drawn[2]) > GREY_LEVELS, "control"
    assert np.abs(drawn[0].astype(int) - enlarged(source)).mean() < 40, "it is that picture"


def test_one_that_ended_early_goes_on_to_the_same_bytes_without_its_picture(
    tmp_path: Path, source: Path
) -> None:
    """In its first stage and its second, and where it was killed while it decoded."""
    asked = TWO | {"guide": "hiflow"}
    render(spec(tmp_path / "whole.zarr", source, **asked))
    whole = pixels(tmp_path / "whole.zarr")
    own = tmp_path / "own.png"
    own.write_bytes(source.read_bytes())
    stop_at(spec(tmp_path / "a.zarr", own, **asked), "step")
    own.unlink()
    for stage in (1, 2):
        ended = []

        def stop(event: Event, stage: int = stage, ended: list[int] = ended) -> None:
            if event.kind == "step" and event.stage == stage:
                ended.append(event.step)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path / "a.zarr", on_event=stop)
        assert ended
    resume(tmp_path / "a.zarr")
    assert np.array_equal(pixels(tmp_path / "a.zarr"), whole)
    kill_at(spec(tmp_path / "b.zarr", source, **asked), "block")
    resume(tmp_path / "b.zarr")
    assert np.array_equal(pixels(tmp_path / "b.zarr"), whole)


def test_what_is_freer_is_farther_from_what_was_handed_in(tmp_path: Path, source: Path) -> None:
    """Held least it may be another picture; held most it is the one that was handed in."""
    small, apart = np.asarray(Image.open(source)).astype(int), []
    for creativity in (0.0, 0.5, 1.0):
        path = tmp_path / f"{creativity}.zarr"
        render(spec(path, source, **TWO | {"height": 128, "width": 128}, creativity=creativity))
        mean = pixels(path).astype(float).reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
        apart.append(np.abs(mean - small).mean())
    assert apart[0] < apart[1] < apart[2]


def test_its_plan_and_its_command(tmp_path: Path, source: Path) -> None:
    words = ["upscale", str(source), "--with", "render", "--size", "256x256", "--dry-run"]
    shown = frieze(*words, "--model", "demo-unet", "--creativity", "0.2", "--guide", "hiflow")
    assert shown.exit_code == 0, shown.output
    assert "64 x 64 px, creativity 0.2, held by hiflow" in shown.output
    made = plan(spec(tmp_path / "a.zarr", source, **TWO))
    assert [made.size(index) for index in range(2)] == [(128, 128), (256, 256)]
    assert [round(stage.start, 4) for stage in made.stages] == [0.45, 0.3375]
    assert made.arrays == ("0", "1", "0-picture", "upscale", "0-guide", "1-guide")
