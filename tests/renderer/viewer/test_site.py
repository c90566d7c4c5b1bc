"""The page as files: the same addresses as the server's, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.export import RUN, clip, draw, make_store, picture
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from frieze.renderer.viewer.entries import Collection
from frieze.renderer.viewer.server import FILES
from frieze.renderer.viewer.site import numbers, write
from support.command_line import frieze, refused
from support.stores import flipped


def loaded(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def waves(height: int, width: int) -> np.ndarray:
    return clip(1, height, width)[0]


def test_finished_pictures_are_published_and_nothing_of_machines(tmp_path: Path) -> None:
    folder = tmp_path / "stores"
    folder.mkdir()
    make_store(folder / "a.zarr", waves(700, 600), (128, 128))
    make_store(folder / "clip.zarr", clip(2, 64, 96), (64, 96))
    begun = make_store(folder / "begun.zarr", picture(64, 64), (64, 64), finish=False)
    draw(begun, picture(64, 64), 0, 64, None)
    out = tmp_path / "site"
    result = frieze("view", str(folder), "--export", str(out))
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    about = json.loads((out / "state.json").read_text())
    assert [store["name"] for store in about["stores"]] == ["a.zarr", "clip.zarr"]
    assert about["is_live"] is False
    assert {name or "index.html" for name in FILES} < {entry.name for entry in out.iterdir()}
    key = about["stores"][0]["key"]
    tiles = out / "stores" / key / "0_files"
    lines = [[loaded(tiles / "10" / f"{x}_{y}.jpg") for x in (0, 1)] for y in (0, 1)]
    whole = np.vstack([np.hstack(line) for line in lines])
    assert whole.shape == (700, 600, 3)
    assert np.abs(whole.astype(int) - waves(700, 600)).mean() < 2
    assert loaded(tiles / "0" / "0_0.jpg").shape == (1, 1, 3)
    pyramid = next(iter(Collection(folder).stores.values()))
    pyramid.look()
    assert pyramid.pyramid is not None
    assert len(list(tiles.rglob("*.jpg"))) == len(list(numbers(pyramid.pyramid)))
    told = "".join(file.read_text() for file in out.rglob("*.json")) + published(out)
    assert "private" not in told
    assert "pid" not in told
    assert len(list((out / "stores" / about["stores"][1]["key"]).glob("*_files"))) == 2
    # It is there already, and may be replaced as ours only.
    refused(frieze("view", str(folder), "--export", str(out)), "already there", "--overwrite")
    assert frieze("view", str(folder), "--export", str(out), "--overwrite").exit_code == 0
    (out / "mine.txt").write_text("mine")
    other = frieze("view", str(folder), "--export", str(out), "--overwrite")
    refused(other, "Frieze did not make")


def published(out: Path) -> str:
    """What the page has in it."""
    text = (out / "index.html").read_text()
    assert text.index('id="published"') < text.index("page.js")
    return text.partition('id="published">')[2].partition("</script>")[0]


def test_the_page_holds_what_it_shows_and_no_text_leaves_its_element(tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    odd = "</script><script>alert(1)</script><!-- \u2028"
    about = {**RUN["picture"], "prompt": odd, "seed": 2**63 - 1}
    store = Store.create(
        tmp_path / "stores" / "<b>.zarr",
        StoreLayout(64, 64, (64, 64)),
        fingerprint="f",
        run={**RUN, "picture": about},
    )
    draw(store, picture(64, 64), 0, 64, None)
    store.finish()
    out = write(Collection(tmp_path / "stores"), tmp_path / "site")
    found = json.loads(published(out))
    assert found == json.loads((out / "state.json").read_text())
    assert (found["stores"][0]["prompt"], found["stores"][0]["name"]) == (
        odd.replace("\u2028", "\\u2028"),
        "<b>.zarr",
    )
    assert found["stores"][0]["seed"] == "9223372036854775807", "a number would be rounded"
    assert (out / "index.html").read_text().count("<script") == 4


@pytest.mark.parametrize("what", ["unfinished", "damaged", "inside", "no folder", "empty"])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    store = tmp_path / "a.zarr"
    made = make_store(store, picture(64, 64), (64, 64), finish=what != "unfinished")
    assert made.layout.height == 64
    out, said = (
        tmp_path / "site",
        {
            "unfinished": "no finished picture",
            "damaged": "frieze verify",
            "inside": "lies in a store itself",
            "no folder": "there is no folder",
            "empty": "no finished picture",
        },
    )
    place = store
    if what == "damaged":
        (file,) = (store / "0").rglob("c/0/0/0")
        flipped(file, 9)
    if what == "inside":
        out = store / "site"
    if what == "no folder":
        out = tmp_path / "no" / "site"
    if what == "empty":
        place = tmp_path / "empty"
        place.mkdir()
    before = sorted(tmp_path.rglob("*"))
    refused(frieze("view", str(place), "--export", str(out)), said[what])
    assert sorted(tmp_path.rglob("*")) == before
