"""Files that cannot hold what is drawn are refused before it is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieze.renderer import outputs
from frieze.renderer.errors import ExportError
from frieze.renderer.store import StoreLayout

PICTURE = StoreLayout(65, 64, (32, 64))
CLIP = StoreLayout(64, 64, (32, 64), frames=5, fps=8)


@pytest.mark.parametrize(
    ("out", "also", "layout", "why"),
    [
        ("a.tif", (), CLIP, "a clip of 5 frames"),
        ("a.png", (), CLIP, "a clip of 5 frames"),
        ("a.zarr", ("a.mp4", "b.tif"), CLIP, "a clip of 5 frames"),
        ("a.mp4", (), PICTURE, "holds a picture"),
        ("a.tif", ("a.frames",), PICTURE, "holds a picture"),
        ("a.mov", (), StoreLayout(64, 33, (32, 33), frames=5, fps=8), "no odd sizes"),
    ],
)
def test_what_a_file_cannot_hold_is_said_before_any_work(
    tmp_path: Path, out: str, also: tuple[str, ...], layout: StoreLayout, why: str
) -> None:
    made = outputs.targets(str(tmp_path / out), [tmp_path / name for name in also], overwrite=False)
    with pytest.raises(ExportError, match=why) as caught:
        outputs.check(made, layout)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "also", "layout"),
    [
        ("a.tif", ("a.png", "b.zarr"), PICTURE),
        ("a.zarr", (), CLIP),
        ("a.mp4", ("a.mov", "a.mkv", "a.frames", "b.zarr"), CLIP),
    ],
)
def test_every_format_is_found_by_its_suffix(
    tmp_path: Path, out: str, also: tuple[str, ...], layout: StoreLayout
) -> None:
    made = outputs.targets(str(tmp_path / out), [tmp_path / name for name in also], overwrite=False)
    outputs.check(made, layout)
    assert made.store.suffix == ".zarr"
    assert len(set(made.all)) == len(also) + (1 if out.endswith(".zarr") else 2)


def record(main: Path, **others: object) -> dict[str, object]:
    """What a store remembers of its outputs."""
    return {"main": str(main), "live": None, "exports": [], "overwrite": False} | others


def test_a_store_from_elsewhere_leads_to_no_file_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "home" / "letters.tif"
    victim.parent.mkdir()
    victim.write_text("years")
    victim.with_name("letters.tif.part").write_text("a picture")
    store = tmp_path / "a.zarr"
    for live in (str(victim), None):
        found = outputs.resumed(
            store, record(victim, live=live, overwrite=True), (), overwrite=True
        )
        assert found.main == tmp_path / "a.tif"
        assert victim not in found.all
        outputs.finish_live(found)
    assert victim.read_text() == "years"
    with pytest.raises(ExportError, match="no format"):
        outputs.resumed(
            store, record(tmp_path, exports=[str(tmp_path / ".profile")]), (), overwrite=True
        )


def test_a_live_tiff_that_is_gone_is_exported_in_the_end(tmp_path: Path) -> None:
    main = tmp_path / "a.tif"
    had = record(main, live=str(main))
    (tmp_path / "a.tif.part").touch()
    found = outputs.resumed(tmp_path / "a.zarr", had, (), overwrite=False)
    assert (found.live, found.exports) == (main, ())
    (tmp_path / "a.tif.part").unlink()
    found = outputs.resumed(tmp_path / "a.zarr", had, (main,), overwrite=False)
    assert (found.live, found.exports) == (None, (main,))


def test_a_recorded_export_that_cannot_be_made_here_is_said_before_any_work(
    tmp_path: Path,
) -> None:
    had = record(tmp_path / "a.zarr", exports=[str(tmp_path / "nowhere" / "a.tif")])
    with pytest.raises(ExportError, match="no folder"):
        outputs.resumed(tmp_path / "a.zarr", had, (), overwrite=False)
