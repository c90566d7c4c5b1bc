"""Files that cannot hold what is drawn are refused before it is drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import png
from frieze.renderer.files.location import S3Path, location
from frieze.renderer.monitoring.report import report
from frieze.renderer.outputs import exporting, targets
from frieze.renderer.store.layout import StoreLayout

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
    made = targets.targets(str(tmp_path / out), [tmp_path / name for name in also], overwrite=False)
    with pytest.raises(ExportError, match=why) as caught:
        targets.check(made, layout)
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
    made = targets.targets(str(tmp_path / out), [tmp_path / name for name in also], overwrite=False)
    targets.check(made, layout)
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
        found = targets.resumed(
            store, record(victim, live=live, overwrite=True), (), overwrite=True
        )
        assert found.main == tmp_path / "a.tif"
        assert victim not in found.all
        targets.finish_live(found)
    assert victim.read_text() == "years"
    with pytest.raises(ExportError, match="no format"):
        targets.resumed(
            store, record(tmp_path, exports=[str(tmp_path / ".profile")]), (), overwrite=True
        )


def test_a_live_tiff_that_is_gone_is_exported_in_the_end(tmp_path: Path) -> None:
    main = tmp_path / "a.tif"
    had = record(main, live=str(main))
    (tmp_path / "a.tif.part").touch()
    found = targets.resumed(tmp_path / "a.zarr", had, (), overwrite=False)
    assert (found.live, found.exports) == (main, ())
    (tmp_path / "a.tif.part").unlink()
    found = targets.resumed(tmp_path / "a.zarr", had, (main,), overwrite=False)
    assert (found.live, found.exports) == (None, (main,))


@pytest.mark.parametrize(
    ("out", "also", "why"),
    [
        ("a.zarr", ("a.zarr",), "is the store itself"),
        ("a.tif", ("a.zarr",), "is the store itself"),
        ("a.zarr", ("./sub/../a.zarr",), "is the store itself"),
        ("a.zarr", ("there/a.zarr",), "is the store itself"),
        ("a.zarr", ("a.zarr/b.png",), "lies in the store itself"),
        ("a.zarr", ("b.png", "c.tif", "b.png"), "is .*b.png once more"),
        ("a.png", ("a.png",), "is .*a.png once more"),
        ("a.tif", ("there/a.tif",), "is .*a.tif once more"),
        ("a.zarr", ("b.png", "there/b.png"), "is .*b.png once more"),
        ("a.zarr", ("old.png", "hard.png"), "is .*old.png once more"),
        ("a.zarr", ("b.zarr", "b.zarr/c.png"), "lies in .*b.zarr"),
        ("a.zarr", ("b.zarr/c.png", "b.zarr"), "would hold .*c.png"),
        ("s3://bk/a.tif", ("S3://bk/a.zarr/",), "is the store itself"),
        ("s3://bk/a.zarr", ("s3://bk/a.zarr/c.png",), "lies in the store itself"),
        ("a.zarr", ("s3://bk/c.png", "s3:/bk/c.png"), "is s3://bk/c.png once more"),
    ],
)
def test_one_place_named_twice_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, also: tuple[str, ...], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "there").symlink_to(tmp_path)
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "old.png")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match=why):
        targets.targets(out, also, overwrite=True)
    if location(out, ExportError).suffix == ".zarr":
        had = record(tmp_path / "a.zarr")
        with pytest.raises(ExportError, match=why):
            targets.resumed(location(out, ExportError), had, also, overwrite=True)
    assert sorted(tmp_path.iterdir()) == before
    had = targets.targets("a.tif", ("b.png",), overwrite=True).record()
    for again in ("there/a.tif", "there/b.png"):  # what the store has recorded, by another way
        with pytest.raises(ExportError, match=r"is .* once more"):
            targets.resumed(tmp_path / "a.zarr", had, (again,), overwrite=True)
    found = targets.targets("a.tif", ("b.png", "sub/b.png", "old.png"), overwrite=True)
    assert len(found.exports) == 3, "control"


@pytest.mark.parametrize("store", ["a.zarr", "there/a.zarr"])
@pytest.mark.parametrize("out", ["a.zarr/b", "there/a.zarr/b", "there/there/a.zarr/b"])
def test_nothing_is_written_into_a_store_by_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    (tmp_path / "there").symlink_to(tmp_path)
    with pytest.raises(ExportError, match="lies in the store itself"):
        exporting.export(store, f"{out}.png", overwrite=False)
    with pytest.raises(ExportError, match="lies in the store itself"):
        report(store, f"{out}.html")
    with pytest.raises(ExportError, match="lies in the store itself"):
        png.export(Output.of(store, f"{out}.png"))
    report(store, "there/b.html")
    exporting.export(store, "there/b.png", overwrite=False)


def test_what_lies_beside_a_store_moves_with_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "sub").mkdir(parents=True)
    made = targets.targets(
        str(old / "a.tif"),
        [old / "a.png", old / "sub" / "b.png", tmp_path / "c.png"],
        overwrite=False,
    )
    about = made.record()
    assert about["main"] == "a.tif"
    assert about["exports"] == ["a.png", "sub/b.png", str(tmp_path / "c.png")]
    whole = about | {  # as earlier versions wrote it
        "main": str(old / "a.tif"),
        "exports": [str(old / "a.png"), str(old / "sub" / "b.png"), str(tmp_path / "c.png")],
    }
    shutil.move(old, new)
    for had in (about, whole):
        found = targets.resumed(new / "a.zarr", had, (), overwrite=False)
        assert found.exports == (new / "a.tif", new / "a.png", new / "sub" / "b.png")
        (told,) = found.left_out
        assert told == (
            f"{tmp_path / 'c.png'} is elsewhere, and not made unasked; "
            f"add --also {tmp_path / 'c.png'} to have it"
        )
        found = targets.resumed(new / "a.zarr", had, (tmp_path / "c.png",), overwrite=False)
        assert found.exports[-1] == tmp_path / "c.png"
        assert not found.left_out
    shutil.rmtree(new / "sub")
    found = targets.resumed(new / "a.zarr", about, (tmp_path / "c.png",), overwrite=False)
    assert found.exports == (new / "a.tif", new / "a.png", tmp_path / "c.png")
    assert found.left_out == (
        f"{new / 'sub' / 'b.png'} is not made: there is no folder {new / 'sub'}",
    )


@pytest.mark.parametrize("store", ["s3://bk/a.zarr", "s3://bk/deep/a.zarr"])
def test_what_lies_beside_a_store_in_a_bucket_is_recorded_so(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "check_export", lambda *_, **__: None)
    monkeypatch.setattr(targets, "is_taken", lambda _: False)
    beside = store.replace("a.zarr", "c/b.png")
    made = targets.targets(store, (beside, "s3://other/b.png"), overwrite=False)
    had = made.record()
    assert had["exports"] == ["c/b.png", "s3://other/b.png"]
    moved = S3Path("new", "x/y.zarr")
    found = targets.resumed(moved, had, (), overwrite=False)
    assert [str(path) for path in found.exports] == ["s3://new/x/c/b.png"]


def test_a_strangers_store_writes_beside_itself_alone_and_replaces_nothing(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "letters.tif").write_text("years")
    (here / "family.png").write_text("years")
    (here / "out").symlink_to(home)
    named = [
        *(str(home / "letters.tif"), "../home/letters.tif", "out/letters.tif", "sub/../../x.png"),
        *("s3://bucket/x.png", "family.png", "a.png"),
    ]
    had = record(Path("a.zarr"), exports=named, overwrite=True)
    found = targets.resumed(here / "a.zarr", had, (), overwrite=False)
    assert found.exports == (here / "a.png",), "control: it may write beside itself"
    assert not found.overwrite
    assert len(found.left_out) == len(named) - 1
    assert "family.png is there and stays; --overwrite replaces it" in found.left_out[-1]
    (here / "a.tif.part").symlink_to(home / "letters.tif")
    live = record(Path("a.tif"), live="a.tif")
    assert targets.resumed(here / "a.zarr", live, (), overwrite=False).live is None


def test_a_recorded_export_that_cannot_be_made_here_is_left_out_and_told(tmp_path: Path) -> None:
    had = record(tmp_path / "a.zarr", exports=[str(tmp_path / "nowhere" / "a.tif")])
    found = targets.resumed(tmp_path / "a.zarr", had, (), overwrite=False)
    assert found.exports == ()
    assert "there is no folder" in found.left_out[0]
    asked = (tmp_path / "nowhere" / "a.tif",)
    with pytest.raises(ExportError, match="no folder"):
        targets.resumed(tmp_path / "a.zarr", had, asked, overwrite=False)


def test_an_unfinished_live_file_is_no_new_renders(tmp_path: Path) -> None:
    (tmp_path / "a.tif.part").write_text("half")
    with pytest.raises(ExportError, match="unfinished; resume that, or use --overwrite"):
        targets.targets(str(tmp_path / "a.tif"), (), overwrite=False)
    targets.targets(str(tmp_path / "a.tif"), (), overwrite=True)
