"""Canvases drawn in tiles: alike on any ranks, in any batches, after a stop; refused in a line."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import checkpoints
from frieze.cluster.layout import Mesh
from frieze.renderer import plan, resume
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.errors import FriezeError
from support.drawing import draw, grey_levels, pixels, small_spec, stop_after
from support.estimates import bands_of, on_threads, planned
from tolerances import CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]
TRAINED, ROWS, COLUMNS = 8, 20, 12  # tokens: 2.5 and 1.5 times the trained side
SHARES = {1: (20,), 2: (5, 15), 3: (13, 1, 6)}
FAMILIES = ("flux", "flux2", "qwen", "zimage", "wan", "sd3", "sd15")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints that were trained at eight tokens a side."""
    root, found = tmp_path_factory.mktemp("tiles"), {}
    for name in FAMILIES:
        found[name] = folder = checkpoints.build(name, root / name)
        side = TRAINED * describe(str(folder)).latent.unit
        hints = {"training_size": side, "training_frames": 5 if name == "wan" else 1}
        (folder / "frieze.json").write_text(json.dumps(hints))
    return found


def made(folder: Path, num_ranks: int, **fields: Any) -> Any:
    """A picture, or clip, of one stage whose positions are interpolated."""
    latent = describe(str(folder)).latent
    return planned(
        folder,
        bands_of(latent, SHARES[num_ranks]),
        Mesh(ring=num_ranks),
        **{
            "height": ROWS * latent.unit,
            "width": COLUMNS * latent.unit,
            "num_frames": 5 if folder.name == "wan" else 1,
            "num_inference_steps": 3,
            "method": "pi",
            "method_options": {"cascade": False},
            "strategy": "tiles",
        }
        | fields,
    )


def estimate(folder: Path, num_ranks: int, step: int = 1, **fields: Any) -> torch.Tensor:
    return on_threads(made(folder, num_ranks, **fields), step, torch.float64, folder)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_any_ranks_draw_alike(folders: dict[str, Path], family: str) -> None:
    folder = folders[family]
    whole = estimate(folder, 1)
    bands = estimate(folder, 1, strategy="bands")
    assert apart(bands, whole) > CONTROL, "control: tiles end attention"
    # Some networks round to float32 on their way, whatever their precision.
    most = EXACT_FLOAT32 if family in ("wan", "sd15") else EXACT_FLOAT64
    for num_ranks in (2, 3):
        assert apart(estimate(folder, num_ranks), whole) <= most, num_ranks
    assert apart(estimate(folder, 1, step=2), whole) > CONTROL, "control: tiles move"


@pytest.mark.parametrize("family", FAMILIES)
def test_how_many_tiles_are_drawn_at_a_time_does_not_matter(
    folders: dict[str, Path], family: str
) -> None:
    most = EXACT_FLOAT32 if family in ("wan", "sd15") else EXACT_FLOAT64
    told = {"positions": "tile", "fusion": 0}
    one, five = (
        estimate(folders[family], 1, strategy_options={**told, "batch": n}) for n in (1, 5)
    )
    assert apart(five, one) <= most
    placed = estimate(folders[family], 1, strategy_options={**told, "positions": "canvas"})
    if family != "sd15":
        assert apart(placed, one) > CONTROL, "control: tiles know where they are"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_tile_over_all_of_the_canvas_is_the_plain_render(
    folders: dict[str, Path], family: str
) -> None:
    folder = folders[family]
    unit = describe(str(folder)).latent.unit
    square = {"width": ROWS * unit, "method": "none", "method_options": {}}
    tile = {"tile": ROWS * unit, "overlap": 0, "fusion": 0}
    plain = estimate(folder, 1, **square, strategy="bands")
    assert torch.equal(estimate(folder, 1, **square, strategy_options=tile), plain)
    smaller = {**tile, "tile": (ROWS - 2) * unit}
    assert apart(estimate(folder, 1, **square, strategy_options=smaller), plain) > CONTROL
    most = EXACT_FLOAT32 if family in ("wan", "sd15") else EXACT_FLOAT64
    assert apart(estimate(folder, 2, **square, strategy_options=tile), plain) <= most


SMALL: dict[str, Any] = {
    "height": 192,
    "width": 128,
    "chunk": 32,
    "num_inference_steps": 2,
    "strategy": "tiles",
    "method": "none",
}
TILED: dict[str, Any] = {
    "height": 384,
    "width": 384,
    "chunk": 64,
    "num_inference_steps": 2,
    "strategy": "tiles",
    "method": "pi",
    "strategy_options": {"tile": 256},
}


def test_any_workers_draw_a_picture_alike_and_a_stopped_one_the_same_bytes(
    tmp_path: Path,
) -> None:
    whole = draw(tmp_path / "1.zarr", **TILED)
    spec = small_spec(tmp_path / "2.zarr", **TILED)
    stop_after(spec, 1)
    resume(spec.out)
    assert np.array_equal(pixels(tmp_path / "2.zarr"), pixels(whole.path))
    draw(tmp_path / "3.zarr", **TILED, workers=3)
    assert grey_levels(pixels(tmp_path / "3.zarr"), pixels(whole.path)) <= GREY_LEVELS
    draw(tmp_path / "4.zarr", **TILED | {"strategy": "bands", "strategy_options": {}})
    assert grey_levels(pixels(tmp_path / "4.zarr"), pixels(whole.path)) > GREY_LEVELS, "control"


OTHER = "a white moon over green hills at night"


def test_regions_of_tiles_have_prompts_of_their_own(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    columns = np.linspace(-1, 2, 96)[None].repeat(144, 0)
    kinds = {"black": 0 * columns, "white": 0 * columns + 1, "right": columns, "left": 1 - columns}
    for name, mask in kinds.items():
        Image.fromarray(np.uint8(255 * mask.clip(0, 1))).save(tmp_path / f"{name}.png")
    numbers = count()

    def drawn(*masks: str, **fields: Any) -> np.ndarray:
        out = tmp_path / f"{next(numbers)}.zarr"
        edit = [f"{tmp_path / mask}.png={OTHER}" for mask in masks]
        draw(out, **SMALL | {"model": str(folders["flux"]), "edit": edit} | fields)
        return pixels(out)

    plain, other, right = drawn(), drawn(prompt=OTHER), drawn("right")
    assert np.array_equal(drawn("black"), plain)
    assert np.array_equal(drawn("white"), other)
    assert grey_levels(right, plain) > GREY_LEVELS
    assert grey_levels(right, other) > GREY_LEVELS
    assert grey_levels(drawn("right", workers=3), right) <= GREY_LEVELS
    assert grey_levels(drawn("right", "left", prompt=""), other) <= GREY_LEVELS
    with pytest.raises(FriezeError, match=r"edit: the masks leave .*% of the picture without a pr"):
        drawn("right", prompt="")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"strategy_options": {"tile": 400}}, "400: larger than the picture, whose shorter side"),
        ({"strategy_options": {"tile": 250}}, "no multiple of 16 px.*the nearest is 256"),
        ({"strategy_options": {"overlap": 24}}, "overlap of tiles = 24: no multiple of 16 px"),
        ({"strategy_options": {"overlap": 256}}, "a tile has 256 px; use at most 240"),
        ({"strategy_options": {"overlp": 16}}, "no option 'overlp'; the nearest is 'overlap'"),
        ({"strategy_options": {"fusion": 2}}, "fusion of tiles = 2; it must be a number from 0"),
        ({"strategy_options": {"shift": 1}}, "shift of tiles = 1; it must be true or false"),
        ({"strategy": "bands"}, "strategy bands takes no options, but 'tile' is given"),
        ({"attend": "pooled"}, "attend pooled: with strategy 'tiles' each tile attends to itself"),
        ({"ulysses": 2, "workers": 2}, "ulysses 2: with strategy 'tiles' no two workers attend"),
        ({"method": "sega"}, "method 'sega' changes the network by the size of the whole canvas"),
        ({"model": "demo-unet", "method": "hidiffusion"}, "method 'hidiffusion' changes the"),
        ({"cache": 0.1}, "cache 0.1: with strategy 'tiles' tiles lie elsewhere at every step"),
        ({"strategy": "tile"}, "no 'tile' in strategies; there are: bands, tiles"),
    ],
)
def test_what_tiles_cannot_draw_is_refused_in_a_line(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FriezeError, match=reason) as raised:
        plan(small_spec(tmp_path / "a.zarr", **TILED | fields))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
