"""The quality benchmark's rows, what it keeps, and the table it makes of it; no model is drawn."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench import quality_report, quality_rows
from bench.quality_metrics import Estimate
from bench.quality_rows import Cell, Row, Settings
from bench.quality_store import Shelf
from contracts.method import UNET_METHODS
from frieze.renderer import plugins

CELL, SETTINGS = Cell(512, 512), Settings()
SCENES, REPEATED = Row("real scenes", "scenes"), Row("repeated", "repeated")


def estimate(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half)


def line(name: str, kind: str, layout: float, crop: float, detail: float) -> quality_report.Line:
    figures = {column: estimate(1.0) for column in quality_report.COLUMNS}
    figures |= {
        "layout KID": estimate(layout),
        "crop KID": estimate(crop),
        "detail": estimate(detail),
    }
    shelf = Shelf.of(Path("nowhere"), Row(name, kind), CELL, SETTINGS)
    return quality_report.Line(shelf, quality_report.LEAST, figures, "")


def remarks(*lines: quality_report.Line) -> list[str]:
    return quality_report.remarks(quality_report.Judged(CELL, lines, 2))


def test_every_method_has_a_row_between_floor_and_ceiling():
    rows = quality_rows.rows(CELL, SETTINGS)
    assert [row.kind for row in rows[:5]] == ["scenes", "repeated", "method", "enlarged", "tiles"]
    assert rows[2].method == "none"
    # For the frames of clips, and so refused; RIFLEx has another row, for pictures.
    others = {"riflex", "ultravico", *UNET_METHODS}  # the last are for U-Nets
    assert {row.method for row in rows} | others == set(plugins.names("methods"))
    assert len({row.digest(CELL, SETTINGS) for row in rows}) == len(rows)


def test_a_cascade_has_a_row_of_its_own_and_only_beyond_the_trained_size():
    def names(cell: Cell) -> list[str]:
        return [row.name for row in quality_rows.rows(cell, SETTINGS, ("pi",))[5:]]

    tiles = ["plain model, tiles", "plain model, tiles without fusion"]
    assert names(CELL) == ["pi", "pi, its cascade", *tiles]
    assert names(Cell(256, 256)) == ["pi", *tiles]


def test_the_digest_names_all_that_decides_a_picture():
    row = Row("pi", "method", "pi")
    digest = row.digest(CELL, SETTINGS)
    assert row.digest(CELL, SETTINGS) == digest
    others = [
        row.digest(Cell(512, 256), SETTINGS),
        row.digest(CELL, Settings(steps=4)),
        Row("pi", "method", "pi", {"cascade": False}).digest(CELL, SETTINGS),
        Row("pi", "method", "none").digest(CELL, SETTINGS),
    ]
    assert digest not in others


@pytest.mark.parametrize(
    ("width", "height", "native"),
    [(512, 512, (256, 256)), (768, 384, (176, 352)), (384, 768, (352, 176))],
)
def test_the_native_picture_has_the_shape_and_the_trained_area(width, height, native):
    assert Cell(width, height).native == native


def test_a_picture_that_is_there_is_not_drawn_again(tmp_path: Path):
    shelf = Shelf.of(tmp_path, SCENES, CELL, SETTINGS)
    shelf.draw(3)
    first = shelf.measures(3)
    (shelf.folder / "0003.seconds").write_text("77")
    shelf.draw(3)
    assert shelf.measures(3).seconds == first.seconds
    assert (first.suns, first.colour, first.upright) == (1, True, True)
    for kept in shelf.folder.glob("*.npz"):
        kept.unlink()
    assert shelf.measures(3).seconds == 77
    assert not Shelf.of(tmp_path, SCENES, CELL, Settings(steps=4)).has(3)


def test_a_method_that_loses_to_what_people_do_today_is_told():
    tiles = line("tiles", "tiles", layout=5.0, crop=1.0, detail=0.9)
    worse = line("worse", "method", layout=5.0, crop=2.0, detail=0.5)
    assert any("worse is not worth its cost: tiles" in told for told in remarks(tiles, worse))
    for kept in (
        line("layout", "method", layout=4.0, crop=2.0, detail=0.5),
        line("detail", "method", layout=5.0, crop=2.0, detail=0.95),
        line("crops", "method", layout=5.0, crop=0.9, detail=0.5),
    ):
        assert remarks(tiles, kept) == []


def test_what_beats_the_default_is_told():
    own = line("auto", "method", layout=5.0, crop=1.0, detail=0.9)
    better = line("better", "method", layout=4.0, crop=1.0, detail=0.9)
    assert remarks(own, better) == ["better beats auto in layout KID."]
    nothing = "Of 2 rows, none beats auto in any column but seconds."
    assert remarks(own, line("like", "method", layout=4.99, crop=1.0, detail=0.9)) == [nothing]
    worse = line("worse", "method", layout=5.0, crop=1.1, detail=0.7)
    assert remarks(own, worse) == [nothing, "auto beats worse in crop KID, detail."]
    few = dataclasses.replace(better, pictures=quality_report.LEAST - 1)
    assert remarks(own, few) == ["Of 1 rows, none beats auto in any column but seconds."]
    point = {**better.figures, "layout KID": Estimate(4.0, 4.0, 4.0)}
    assert remarks(own, dataclasses.replace(better, figures=point)) == [nothing]


def test_to_repeat_less_than_real_scenes_is_no_merit():
    def alike(name: str, kind: str, value: float) -> quality_report.Line:
        made = line(name, kind, layout=5.0, crop=1.0, detail=0.9)
        figures = {**made.figures, "repeats across": estimate(value)}
        return dataclasses.replace(made, figures=figures)

    less = alike("less", "method", -0.1)
    told = remarks(alike("real", "scenes", 0.1), alike("auto", "method", 0.1), less)
    assert told[0] == "Of 2 rows, none beats auto in any column but seconds."
    assert told[1].endswith("than real scenes, in repeats across: less.")
    told = remarks(alike("real", "scenes", 0.0), alike("auto", "method", 0.1), less)
    assert told == ["less beats auto in repeats across."]


def test_detail_of_what_is_drawn_twice_is_no_merit():
    own = line("auto", "method", layout=5.0, crop=1.0, detail=0.4)
    finer = line("finer", "method", layout=5.0, crop=1.0, detail=0.6)
    assert remarks(own, finer) == ["finer beats auto in detail."]
    figures = {**finer.figures, "repeats down": estimate(2.0)}
    told = remarks(own, dataclasses.replace(finer, figures=figures))
    assert told[0] == "Of 2 rows, none beats auto in any column but seconds."
    assert told[1] == "More detail than auto, of what they repeat more than it does: finer."


def test_too_much_detail_is_no_better_than_too_little():
    assert quality_report.beats(estimate(0.95), estimate(1.2), "detail")
    assert quality_report.beats(estimate(0.95), estimate(0.8), "detail")
    assert not quality_report.beats(estimate(1.2), estimate(0.95), "detail")


def test_real_scenes_are_the_ceiling_and_a_repeated_one_is_seen_to_repeat(tmp_path: Path):
    shelves = [Shelf.of(tmp_path, row, CELL, SETTINGS) for row in (SCENES, REPEATED)]
    for shelf in shelves:
        for seed in range(6):
            shelf.draw(seed)
    found = quality_report.judged(tmp_path, CELL, shelves, 6)
    real, repeated = (line.figures for line in found.lines)
    assert real["one sun"].value == real["sky above"].value == 1.0
    assert real["layout KID"].low < 0 < real["layout KID"].high
    assert 0.9 < real["detail"].value < 1.1
    for column in ("one sun", "repeats across", "layout KID"):
        assert quality_report.beats(real[column], repeated[column], column), column
    assert repeated["repeats across"].low > 0.5
    assert np.isnan(real["entropy"].value)

    quality_report.write(tmp_path / "results" / "quality", [found], "the command", SETTINGS)
    text = (tmp_path / "results" / "quality.md").read_text()
    assert "| real scenes | 6 | 1.00 (" in text
    assert "the command" in text
    with (tmp_path / "results" / "quality.csv").open() as file:
        records = list(csv.DictReader(file))
    assert {record["row"] for record in records} == {"real scenes", "repeated"}
    assert (tmp_path / "results" / "quality-512x512.png").stat().st_size > 0
