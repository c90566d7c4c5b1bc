"""A file from a store by its suffix, with the options of its format as a person writes them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import pytest
import tifffile
from typer.testing import CliRunner

from contracts.export import make_store, picture
from frieze.renderer.cli import app
from frieze.renderer.errors import SpecError, StoreError
from frieze.renderer.monitoring.report import report
from frieze.renderer.outputs import exporting


@pytest.mark.parametrize("bits", [10, "10"])
def test_a_number_that_is_a_word_is_read(tmp_path: Path, bits: object) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 80), (32, 32)).path
    out = str(tmp_path / "a.avif")
    exporting.export(str(store), out, overwrite=False, options={"bits": bits})
    assert imagecodecs.avif_decode(Path(out).read_bytes()).max() > 255


def test_options_reach_the_format(tmp_path: Path) -> None:
    pixels_HWC = picture(64, 80)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32)).path
    for classic in (True, False):
        words = ["--option", f"classic={str(classic).lower()}", "--option", "level=9"]
        out = tmp_path / f"{classic}.tif"
        shown = CliRunner().invoke(app.app, ["export", str(store), str(out), *words])
        assert (shown.exit_code, shown.stderr) == (0, "")
        with tifffile.TiffFile(out) as file:
            assert file.is_bigtiff != classic
            assert (file.asarray() == pixels_HWC).all()


@pytest.mark.parametrize("make", ["a folder", "an empty folder", "a file"])
def test_what_is_no_store_is_told_so_wherever_the_file_would_lie(tmp_path: Path, make: str) -> None:
    """Not that the file would lie in a store: there is none."""
    place = tmp_path / "a"
    if make == "a file":
        place.write_text("x")
    else:
        place.mkdir()
    if make == "a folder":
        (place / "b.txt").write_text("x")
    there = sorted(tmp_path.rglob("*"))
    for out in (place / "x.tif", tmp_path / "x.tif"):
        for tell in (exporting.export, report):
            with pytest.raises(StoreError, match=r"is no Frieze store|there is no store at"):
                tell(str(place), str(out), overwrite=False)
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("a.png", {"level": 12}, "option level of png = 12; it must be a whole number from 1 to 9"),
        ("a.png", {"level": True}, "option level of png = True; it must be a whole number from 1"),
        ("a.png", {"lvel": 1}, "export png has no option 'lvel'; the nearest is 'level'"),
        ("a.zarr", {"level": 1}, "export ome_zarr takes no options, but 'level' is given"),
        ("a.tif", {"classic": "maybe"}, "option classic of tiff = 'maybe'; it must be true or"),
    ],
)
def test_an_option_that_does_not_work_is_one_line_before_any_work(
    tmp_path: Path, name: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        exporting.export(
            str(tmp_path / "no.zarr"), str(tmp_path / name), overwrite=False, options=options
        )
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
