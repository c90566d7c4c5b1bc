"""Sizes on paper in words: what they say in pixels, and what contradicts them."""

from __future__ import annotations

import pytest

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.merging import merge
from frieze.renderer.spec.place import (
    length_mm,
    overridden,
    print_dpi,
    print_inches,
    print_mm,
    print_text,
)
from frieze.renderer.spec.render_spec import RenderSpec, parse


@pytest.mark.parametrize(
    ("size", "mm"),
    [
        ("60x40cm", (600, 400)),
        ("600 x 400 mm", (600, 400)),
        ("24X16in", (609.6, 406.4)),
        (" 10.5\u00d714.8cm ", (105, 148)),
    ],
)
def test_a_print_is_told_in_three_units(size: str, mm: tuple[float, float]) -> None:
    assert print_mm(size) == pytest.approx(mm)
    assert parse({"print": size}).print == size.strip()


def test_size_follows_from_dpi_and_dpi_from_size() -> None:
    drawn = parse({"print": "60x40cm"})
    assert (drawn.width, drawn.height, drawn.dpi) == (7087, 4724, 300)
    drawn = parse({"print": "60x40cm", "dpi": "150"})
    assert (drawn.width, drawn.height, drawn.dpi) == (3543, 2362, 150)
    drawn = parse({"print": "60x40cm", "width": "3000", "height": 2000})
    assert (drawn.width, drawn.height, drawn.dpi) == (3000, 2000, pytest.approx(127))
    drawn = parse({"print": "60x40cm", "width": 3008, "height": 2000})
    assert 2000 / drawn.dpi * 2.54 == pytest.approx(40)
    assert 3008 / drawn.dpi * 2.54 > 60


def test_bleed_is_drawn_around_the_print() -> None:
    plain, around = parse({"print": "60x40cm"}), parse({"print": "60x40cm", "bleed": "3mm"})
    assert around.width - plain.width == round(6 / 25.4 * 300, 0) - 1
    assert (around.width, around.height) == (7157, 4795)
    assert length_mm("0.125in") == pytest.approx(3.175)


def test_what_follows_is_told_again_as_it_is_and_decides_no_pixels_itself() -> None:
    drawn = parse({"print": "60x40cm", "width": 3008, "height": 2000})
    again = parse(drawn.model_dump(exclude_unset=True))
    assert again == drawn
    names = {"print", "bleed"}
    assert not names & drawn.picture().keys()
    assert names <= RenderSpec.model_fields.keys()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"print": "60x40"}, "is not WIDTHxHEIGHT with a unit, as 60x40cm"),
        ({"print": "60x40px"}, "is not WIDTHxHEIGHT with a unit"),
        ({"print": "-60x40cm"}, "is not WIDTHxHEIGHT with a unit"),
        ({"print": "0x40cm"}, "between 1 mm and 100 m"),
        ({"print": "60x99999cm"}, "between 1 mm and 100 m"),
        ({"print": 60}, "print = 60"),
        ({"print": "60x40cm", "dpi": 1e6}, "23622047 x 15748031 pixels; from 16 to 1048576"),
        ({"print": "10x10mm", "dpi": 1}, "0 x 0 pixels"),
        ({"print": "60x40cm", "dpi": float("nan")}, "dpi"),
        ({"print": "60x40cm", "dpi": float("inf")}, "dpi"),
        ({"print": "60x40cm", "dpi": "many"}, "dpi = 'many'"),
        ({"print": "60x40cm", "width": 300}, "width alone; give both sides, or dpi"),
        ({"print": "60x40cm", "width": 900, "height": 900}, "900x600 has the print's"),
        (
            {"print": "60x40cm", "width": 3000, "height": 2000, "dpi": 300},
            "contradict each other: it would be 127 dpi",
        ),
        ({"print": "10m x 10m", "width": 16, "height": 16}, "is not WIDTHxHEIGHT"),
        ({"print": "9000x9000mm", "width": 160, "height": 160}, "dpi = 0.45"),
        ({"bleed": "3mm"}, "bleed '3mm' lies around a print"),
        ({"print": "60x40cm", "bleed": "3"}, "is not a length with a unit, as 3mm"),
        ({"print": "60x40cm", "bleed": "-3mm"}, "is not a length"),
        ({"print": "60x40cm", "bleed": "21cm"}, "more than half of print 60x40cm"),
    ],
)
def test_what_is_no_print_is_refused_in_a_line(values: dict[str, object], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(values)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_replaces_what_another_says_of_the_size_in_other_words() -> None:
    assert overridden({}, {"size": "1x1"}) == {"height", "width", "print", "bleed"}
    assert overridden({}, {"width": 1}) == {"size", "print", "bleed"}
    assert overridden({}, {"print": "6x4cm"}) == {"height", "width", "size"}
    assert overridden({"print": "6x4cm"}, {"dpi": 1}) == {"height", "width", "size"}
    assert overridden({}, {"dpi": 1, "print": None}) == set()
    assert overridden({}, {"print": "6x4cm", "width": 1, "height": 1}) == {"size"}


def test_the_command_line_wins_over_a_presets_size() -> None:
    drawn = merge("demo", None, None, {"print": "60x40mm", "dpi": 200})
    assert (drawn.width, drawn.height) == (472, 315)
    sized = merge("demo", None, "96x64", {"print": "60x40mm"})
    assert (sized.width, sized.height, sized.dpi) == (96, 64, pytest.approx(40.64))


def test_how_far_off_it_is_is_told() -> None:
    inches = print_inches("60x40cm", None)
    dpi = print_dpi(inches, 3008, 2000)
    assert print_text("60x40cm", None, dpi, (3008, 2000)) == (
        "60x40cm at 127 dpi; 1.6 mm of the width lie beyond it"
    )
    assert (
        print_text("60x40cm", "3mm", 127.0, (3030, 2030))
        == "60x40cm at 127 dpi, 3mm bleed, exactly"
    )
