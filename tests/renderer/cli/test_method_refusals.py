"""What HiDiffusion, CineScale and edits cannot draw: one line, exit code 2, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

import checkpoints
from support.command_line import frieze, refused

ONLY = "changes the U-Net of Stable Diffusion 1.5, 2.1, SDXL or SDXL-Turbo, and"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("refusals")
    for name in ("sd15-deep", "sdxl-deep", "sdxl"):
        checkpoints.build(name, made / name)
    for mask, size in {"white": (64, 64), "wide": (96, 64)}.items():
        Image.new("L", size, 255).save(made / f"{mask}.png")
    (made / "empty.png").touch()
    return made


CASES = {
    # Of a family without these layers, and of another U-Net.
    "--method hidiffusion": (ONLY, "is flux, which has none; use one of these models"),
    "--method cinescale --model sdxl": (ONLY, "is another U-Net"),
    "--method rdfc --model sdxl-deep": (
        "is for rotary positions, and unet has none",
        "none, auto, pi, imax, hiflow and cinescale work with it",
        "hidiffusion too",
    ),
    # Sizes; the one that is named works in all respects, the method's too.
    "--method hidiffusion --model sd15-deep --size 440x512": (
        "width 440 is no multiple of 128, which method 'hidiffusion'",
        "the nearest that works is 384",
    ),
    "--method hidiffusion --model sdxl-deep --size 512x540": (
        "height 540 is no multiple of 64",
        "the nearest that works is 512",
    ),
    "--method cinescale --model sdxl-deep --size 500x512": (
        "width 500 is no multiple of 32, which unet needs",
        "the nearest that works is 512",
    ),
    # Workers.
    "--method hidiffusion --model sd15-deep --workers 5": ("use at most 4 workers",),
    "--method cinescale --model sd15-deep --size 128x320 --workers 3": (
        "reads 128 rows of a neighbour",
        "use at most 2 workers",
    ),
    "--method cinescale --model sdxl-deep --size 512x512 --workers 8": ("use at most 4 workers",),
    # Masks and edits.
    "--method cinescale --model sdxl-deep --mask wide.png": (
        "mask '",
        "is 96x64 pixels and the picture 512x512",
        "a mask of the picture's shape works, as 512x512",
    ),
    "--method cinescale --model sdxl-deep --mask gone.png": ("there is no file", "gone.png"),
    "--method cinescale --model sdxl-deep --mask empty.png": ("empty.png is empty",),
    "--method hidiffusion --model sdxl-deep --mask white.png": (
        "treats all regions alike",
        "use cinescale, or give an init",
    ),
    "--model sdxl-deep --edit gone.png=x": ("there is no file", "gone.png"),
    "--model sdxl-deep --edit wide.png=x": ("edit '", "is 96x64 pixels"),
    "--model sdxl-deep --edit white.png": ("it is not MASK=PROMPT",),
    "--model sdxl-deep --edit =x": ("it is not MASK=PROMPT",),
    "--method cinescale --model sdxl-deep --edit white.png=x --edit-stage 4": ("1 to 3 work",),
    "--method hidiffusion --model sdxl-deep --edit white.png=x --edit-stage 2": ("one stage",),
    # Options.
    "--method hidiffusion --model sdxl-deep --option strided=2": ("a number from 0 to 1",),
    "--method hidiffusion --model sdxl-deep --option schedule=agressive": ("is 'aggressive'",),
    "--method cinescale --model sdxl-deep --option restart=1": ("from 0, less than 1",),
    "--method cinescale --model sdxl-deep --option fusions=hw": ("the nearest is 'fusion'",),
}


@pytest.mark.parametrize("words", CASES)
def test_what_cannot_be_drawn_is_one_line_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(os.listdir())
    given = words.split()
    size = [] if "--size" in given else ["--size", "512x512"]
    for command in (["plan", "x"], ["render", "x", "--out", "a.zarr"]):
        result = frieze(*command, *size, *given, "--local")
        refused(result, *CASES[words])
        assert len(result.stderr) <= 1200
    assert sorted(os.listdir()) == before
