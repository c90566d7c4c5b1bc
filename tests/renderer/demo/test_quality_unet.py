"""The quality benchmark of UNets: its rows, its order, its table and sheets; no model is drawn."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import quality_metrics as metrics
from bench import quality_rows, quality_tiles, quality_unet, quality_unet_sheets
from bench.quality_unet_rows import TRAINED, Row, Shelf, rows
from contracts.method import UNET_METHODS
from frieze.renderer.demo import scenes
from frieze.renderer.planning.plan import plan

STEPS, SEEDS = 15, 4
RNG = np.random.default_rng


def drawn(work: Path, scale: int, row: Row, first: int = 0) -> Shelf:
    """A shelf of real scenes, of the seeds' prompts if `first` is 0."""
    shelf, side = Shelf.of(work, row, scale, STEPS), TRAINED * scale
    shelf.folder.mkdir(parents=True)
    for seed in range(SEEDS):
        picture = scenes.draw(scenes.scene_from(first + seed), side, side)
        Image.fromarray(picture).save(shelf.file(seed))
        shelf.file(seed).with_suffix(".seconds").write_text("1.5")
    return shelf


@pytest.fixture
def shelves(tmp_path: Path) -> Mapping[int, list[Shelf]]:
    wanted = {"native enlarged", "cinescale, no fusion", *quality_unet_sheets.SHOWN}
    return {
        scale: [
            drawn(tmp_path, scale, row, 90 if row.name == "direct" else 0)
            for row in rows(scale)
            if row.name in wanted
        ]
        for scale in (2,)
    }


@pytest.mark.parametrize("scale", [2, 4])
def test_every_row_is_planned_and_has_pictures_of_its_own(scale: int, tmp_path: Path):
    shelves = [Shelf.of(tmp_path, row, scale, STEPS) for row in rows(scale)]
    assert len({shelf.folder for shelf in shelves}) == len(shelves)
    assert {shelf.row.method for shelf in shelves} == {"none", "cinescale", *UNET_METHODS}
    names = {shelf.row.name for shelf in shelves}
    assert {name for pair in quality_unet.PAIRS for name in pair} <= names
    for shelf in shelves:
        side = TRAINED * (1 if shelf.row.native else scale)
        planned = plan(shelf.spec(0).model_copy(update={"out": str(tmp_path / "a.zarr")}))
        assert planned.stages[-1].canvas.width * 8 == side
        is_staged = shelf.row.name.startswith("cascade") or shelf.row.method == "cinescale"
        assert len(planned.stages) == (scale.bit_length() if is_staged else 1)


def test_sizes_go_on_together(shelves: Mapping[int, list[Shelf]]):
    both = {2: shelves[2][:2], 4: shelves[2][2:3]}
    turns = [(seed, shelf.row.name) for seed, shelf in quality_unet.order(both, {2: 4, 4: 2})]
    small, large = ([shelf.row.name for shelf in both[scale]] for scale in (2, 4))
    assert turns == [
        *((0, name) for name in small),
        (0, large[0]),
        *((seed, name) for seed in (1, 2) for name in small),
        (1, large[0]),
        *((3, name) for name in small),
    ]


def test_what_is_drawn_is_judged_and_shown(shelves: Mapping[int, list[Shelf]], tmp_path: Path):
    found = {scale: quality_unet.judged(of_size, 64) for scale, of_size in shelves.items()}
    quality_unet.write(tmp_path / "out", tmp_path, found, "python this", STEPS)
    with (tmp_path / "out" / "quality_unet.csv").open() as file:
        lines = {(line["row"], line["column"]): line for line in csv.DictReader(file)}
    assert float(lines["cinescale", "right colour"]["value"]) == 1
    assert float(lines["direct", "right colour"]["value"]) < 1  # other prompts' scenes
    assert lines["cinescale", "seconds"]["value"] == "1.5"
    text = (tmp_path / "out" / "quality_unet.md").read_text()
    assert "| cinescale - cinescale, no fusion | 4 | 0.00 (0.00 to 0.00) |" in text
    assert quality_unet.NOTES.read_text().strip() in text
    sheets = {"quality_unet-256.jpg": 5 * quality_unet_sheets.THUMB, "quality_unet.jpg": 168}
    for name, height in sheets.items():
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.height == height


# What diffusers' Euler scheduler asks of numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_tiles_of_the_unet_are_drawn_again_after_the_picture():
    picture, other = (
        quality_tiles.enlarged(scenes.draw(scenes.scene_from(seed), 128, 128), 128, 192)
        for seed in (1, 2)
    )
    refined = quality_tiles.refined(picture, quality_rows.prompt(1), 1, "demo-unet")
    near, far = (np.abs(refined - 1.0 * each).mean() for each in (picture, other))
    assert 1 < near < far / 2
    again = quality_tiles.refined(picture, quality_rows.prompt(1), 1, "demo-unet")
    assert np.array_equal(refined, again)


def test_pictures_of_the_same_prompts_are_told_apart_by_pairs_where_intervals_overlap():
    prompts, y, x = (RNG(seed).normal(size=(24, 1, 8)) for seed in range(3))
    x, y = prompts + 0.3 + 0.1 * x, prompts + 0.1 * y
    farther = x + 0.03
    alone = [metrics.kid(each, y, RNG(0)) for each in (x, farther)]
    assert alone[1].low < alone[0].high
    less = metrics.kid_difference(farther, x, y, RNG(0))
    assert less.low > 0
    assert less.value == pytest.approx(alone[1].value - alone[0].value)
    assert metrics.kid_difference(x, x, y, RNG(0)).high == 0
    with pytest.raises(ValueError, match="24 and 23"):
        metrics.kid_difference(x, x, y[1:], RNG(0))
