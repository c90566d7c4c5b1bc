"""Contact sheets: every picture in its place, from the pyramid, with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frieze.renderer.outputs.contact_sheet import CAPTION, MARGIN, PAPER, SIDE, contact_sheet
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from frieze.renderer.store.thumbnail import thumbnail

RED, BLUE = (200, 30, 20), (20, 40, 220)


def store_of(path: Path, colour: tuple[int, int, int], height: int = 512, **more: object) -> Path:
    """A finished store of one colour, 1024 pixels wide."""
    layout = StoreLayout(height=height, width=1024, block=(256, 256), **more)
    store = Store.create(path, layout, fingerprint="x", run={})
    top = 257 if layout.dtype == "uint16" else 1
    rows_HWC = np.full((height, 1024, 3), colour, layout.dtype) * np.array(top, layout.dtype)
    for frame in range(layout.frames or 1):
        ids = store.write_rows(0, rows_HWC // (frame + 1), frame if layout.frames else None)
        store.journal.append({"event": "block", "ids": ids})
    store.finish()
    return path


def colour_at(sheet: Image.Image, column: int) -> tuple[int, ...]:
    """The colour in the lower middle of a place in the first row."""
    left = MARGIN + column * (SIDE + MARGIN)
    pixel = sheet.getpixel((left + SIDE // 2, MARGIN + SIDE - 10))
    assert isinstance(pixel, tuple)
    return pixel


def test_every_picture_has_its_place_and_its_name(tmp_path: Path) -> None:
    pictures = [
        ("red", store_of(tmp_path / "a.zarr", RED)),
        ("a blue one with a name that is too long", store_of(tmp_path / "b.zarr", BLUE)),
        ("lost", tmp_path / "nowhere.zarr"),
    ]
    sheet = Image.open(contact_sheet(pictures, tmp_path / "contact.png"))
    assert sheet.size == (2 * (SIDE + MARGIN) + MARGIN, 2 * (SIDE + MARGIN + CAPTION) + MARGIN)
    assert (colour_at(sheet, 0), colour_at(sheet, 1)) == (RED, BLUE)
    page_HWC = np.asarray(sheet)
    captions = page_HWC[MARGIN + SIDE : MARGIN + SIDE + CAPTION]
    for left in (MARGIN, 2 * MARGIN + SIDE):
        assert (captions[:, left : left + SIDE] != PAPER).any()
    assert (captions[:, :MARGIN] == PAPER).all()
    assert (captions[:, MARGIN + SIDE : 2 * MARGIN + SIDE] == PAPER).all()


@pytest.mark.parametrize(
    "more", [{}, {"dtype": "uint16"}, {"frames": 2, "fps": 8.0}], ids=["8", "16", "clip"]
)
def test_a_thumbnail_is_small_whole_and_of_the_middle_frame(tmp_path: Path, more: object) -> None:
    assert isinstance(more, dict)
    made = thumbnail(Store.open(store_of(tmp_path / "a.zarr", RED, height=768, **more)), SIDE)
    assert made.size == (SIDE, SIDE * 3 // 4)
    middle = [value // (2 if "frames" in more else 1) for value in RED]
    assert made.getextrema() == tuple((value, value) for value in middle)


def test_only_a_level_of_the_pyramid_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, levels = store_of(tmp_path / "a.zarr", RED), []
    read = Store.read_rows

    def counted(self: Store, top: int, bottom: int, level: int = 0, frame: int | None = None):  # type: ignore[no-untyped-def]
        levels.append(level)
        return read(self, top, bottom, level, frame)

    monkeypatch.setattr(Store, "read_rows", counted)
    thumbnail(Store.open(path), SIDE)
    assert levels == [2]
