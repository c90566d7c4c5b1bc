"""A print is drawn in the nearest size that its model and method can draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from frieze.renderer.batches import items
from frieze.renderer.driver.print_size import of_print
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import parse
from support.command_line import frieze

UNET = {"model": "demo-unet", "method": "hidiffusion"}


def test_without_a_print_a_spec_is_as_it_was() -> None:
    spec = parse({"width": 500, "height": 300})
    assert of_print(spec) is spec


def test_sides_are_the_nearest_and_the_print_is_covered() -> None:
    asked = parse({"print": "60x40mm", "dpi": 200})
    assert (asked.width, asked.height) == (472, 315)
    drawn = of_print(asked)
    assert (drawn.width, drawn.height) == (480, 320)
    assert 320 / drawn.dpi * 25.4 == pytest.approx(40)
    assert 480 / drawn.dpi * 25.4 == pytest.approx(60)
    assert of_print(drawn) == drawn == parse(drawn.model_dump(exclude_unset=True))
    assert "print     60x40mm at 203.2 dpi, exactly" in str(plan(drawn))


def test_a_decoder_draws_finer_sizes_and_a_method_coarser_ones() -> None:
    decoded = of_print(parse({"print": "60x40mm", "dpi": 200, "decoder": "infgen"}))
    assert (decoded.width, decoded.height) == (472, 312)
    coarse = of_print(parse({"print": "60x40mm", "dpi": 430, **UNET}))
    plain = of_print(parse({"print": "60x40mm", "dpi": 430, "model": "demo-unet"}))
    assert (coarse.width, coarse.height) == plan(coarse).size(-1)[::-1]
    assert (coarse.width, coarse.height) != (plain.width, plain.height)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Of a print's shape, 3 to 2."""
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("decoder", ["infgen", None])
@pytest.mark.parametrize("dpi", [200, 203.2, 300])
def test_a_picture_keeps_its_shape_and_covers_its_print_as_finely_as_asked(
    photo: Path, decoder: str | None, dpi: float
) -> None:
    asked = parse({"print": "60x40mm", "dpi": dpi, "upscale": str(photo), "decoder": decoder})
    drawn = of_print(asked)
    assert drawn.width * 64 == drawn.height * 96
    assert drawn.dpi >= dpi - 1e-9
    assert drawn.height % 8 == 0 == drawn.width % 8
    assert drawn.height - asked.height < 16
    assert of_print(drawn) == drawn
    sized = parse({"print": "60x40mm", "width": 480, "height": 320, "upscale": str(photo)})
    assert (of_print(sized).width, of_print(sized).dpi) == (480, pytest.approx(203.2))


@pytest.mark.parametrize("words", [("60x60mm",), ("60x40mm", "--bleed", "3mm")])
def test_a_print_of_another_shape_than_its_picture_is_one_line(
    photo: Path, words: tuple[str, ...]
) -> None:
    shown = frieze("upscale", str(photo), "--dry-run", "--print", *words)
    assert shown.exit_code == 2
    assert "has another shape than upscale" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_size_or_a_print_is_wanted_and_of_a_folder_a_size(photo: Path) -> None:
    for place, words, told in (
        (photo, (), "or --print"),
        (photo.parent, ("--print", "60x40mm"), "of a folder give --size"),
    ):
        shown = frieze("upscale", str(place), "--dry-run", *words)
        assert (shown.exit_code, told in shown.stderr) == (2, True), shown.stderr
    shown = frieze("upscale", str(photo), "--dry-run", "--print", "60x40mm", "--dpi", "200")
    assert "print     60x40mm at 203.2 dpi, exactly" in shown.stdout


def test_an_item_of_a_batch_has_its_size_from_its_print(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mappings = [
        {"prompt": "a sun", "print": "60x40mm", "dpi": 200},
        {"prompt": "a moon", "preset": "demo", "print": "6x6cm", "dpi": 100},
        {"prompt": "a star", "print": "60x40mm", "size": "96x64"},
    ]
    found = items.read(mappings, tmp_path, {})
    assert [(item.spec.width, item.spec.height) for item in found] == [
        (480, 320),
        (240, 240),
        (96, 64),
    ]
    assert found[2].spec.dpi == pytest.approx(40.64)


def test_plan_and_config_tell_it_and_a_preset_of_it_reads_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    words = ("--print", "60x40mm", "--dpi", "200")
    shown = frieze("config", *words)
    assert {"print: 60x40mm", "width: 480", "height: 320"} <= set(shown.stdout.splitlines())
    preset = tmp_path / "print.yaml"
    preset.write_text(shown.stdout)
    assert frieze("config", "--preset", str(preset)).stdout == shown.stdout
    planned = frieze("plan", "a sun", *words).stdout
    assert "picture   480 x 320 px" in planned
    assert "print     60x40mm at 203.2 dpi, exactly" in planned
