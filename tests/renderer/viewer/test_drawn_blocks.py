"""Blocks by their place, and a plan whose blocks nobody could count in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.export import RUN, draw, picture
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from frieze.renderer.viewer import tiles
from frieze.renderer.viewer.drawn_blocks import DrawnBlocks


def test_blocks_are_found_by_their_place() -> None:
    found = DrawnBlocks(["2/1", "0/10", "0/9", "2/0", "1/3"])
    assert found.within(0, range(3), range(11)) == [(0, 9), (0, 10), (1, 3), (2, 0), (2, 1)]
    assert found.within(0, range(1), range(10)) == [(0, 9)]
    assert found.within(0, range(3, 9), range(11)) == []
    assert found.within(1, range(3), range(11)) == []
    frames = DrawnBlocks(["3/0/1", "4/0/2"])
    assert frames.within(4, range(1), range(9)) == [(0, 2)]
    assert DrawnBlocks([]).within(0, range(9), range(9)) == []


def test_a_huge_plan_is_read_where_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pyramid(name: str, width: int) -> tiles.TilePyramid:
        layout = StoreLayout(100_000, width, (64, 64))
        store = Store.create(tmp_path / name, layout, fingerprint="f", run=RUN)
        return tiles.TilePyramid(store, tiles.TileCache(2**27))

    halved: list[int] = []
    own = tiles.halve
    monkeypatch.setattr(tiles, "halve", lambda pixels: halved.append(1) or own(pixels))
    whole = pyramid("whole.zarr", 100_000)  # 2.4 million blocks
    assert not whole.tile(0, 0, 0).drawn_HW.any()
    assert not whole.tile(whole.top, 97, 97).drawn_HW.any()
    assert not halved
    strip = pyramid("strip.zarr", 64)
    pixels_HWC = picture(64, 64)
    draw(strip.store, pixels_HWC, 0, 64, None)
    shown = strip.tile(strip.top - 5, 0, 0)
    assert shown.drawn_HW[:2].all()
    assert not shown.drawn_HW[2:].any()
    assert len(halved) < 10, "where it is drawn, not in all 196 tiles"
    tile = strip.tile(strip.top, 0, 0)
    assert (tile.pixels_HWC[:64] == pixels_HWC).all()
    assert tile.drawn_HW[:64].all()
    assert not tile.drawn_HW[64:].any()
