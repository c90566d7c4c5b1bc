"""Tiles hold the store's own pixels, finished or not; what is missing is clear, not black."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.export import clip, draw, make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.store.layout import halve
from frieze.renderer.store.store import Store
from frieze.renderer.viewer.tiles import TILE, TileCache, TilePyramid
from support.stores import flipped


def pyramid(store: Store) -> TilePyramid:
    return TilePyramid(store, TileCache(2**24))


def level(tiles: TilePyramid, number: int, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A level's pixels [H, W, 3], and which of them are drawn, put together from its tiles."""
    rows, columns = tiles.counts(number)
    found = [[tiles.tile(number, x, y, frame) for x in range(columns)] for y in range(rows)]
    pixels = np.vstack([np.hstack([t.pixels_HWC for t in line]) for line in found])
    return pixels, np.vstack([np.hstack([t.drawn_HW for t in line]) for line in found])


def halved(pixels_HWC: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        pixels_HWC = halve(pixels_HWC)
    return pixels_HWC


@pytest.mark.parametrize("size", [(1100, 700), (513, 31)])
@pytest.mark.parametrize("bits", [8, 16])
def test_levels_are_the_picture_and_its_exact_halves(
    tmp_path: Path, size: tuple[int, int], bits: int
) -> None:
    expected = picture(*size, bits)
    tiles = pyramid(make_store(tmp_path / "a.zarr", expected))
    assert tiles.size(0) == (1, 1)
    for number in range(tiles.top + 1):
        pixels, drawn = level(tiles, number)
        assert drawn.all()
        np.testing.assert_array_equal(pixels, halved(expected, tiles.top - number))
    control, _ = level(tiles, tiles.top)
    control[-1, -1, 0] ^= 1
    assert (control != expected).sum() == 1


def test_blocks_show_at_every_level_before_the_pyramid_is_whole(tmp_path: Path) -> None:
    expected = picture(1024, 768)
    store = make_store(tmp_path / "a.zarr", expected, (128, 128), finish=False)
    tiles = pyramid(store)
    pixels, drawn = level(tiles, tiles.top)
    assert not drawn.any()
    assert not pixels.any()
    for row in (0, 256):
        draw(store, expected, row, 128, None)
    for number in range(tiles.top + 1):
        times = tiles.top - number
        pixels, drawn = level(tiles, number)
        rows = 128 >> times
        where = np.zeros_like(drawn)
        where[:rows] = where[2 * rows : 3 * rows] = True
        if rows:
            np.testing.assert_array_equal(drawn, where)
            np.testing.assert_array_equal(pixels[drawn], halved(expected, times)[drawn])
        assert not tiles.tile(number, 0, 0).is_whole
    for row in range(0, 1024, 128):
        draw(store, expected, row, 128, None)
    before = [level(tiles, number)[0] for number in range(tiles.top + 1)]
    assert not store.is_complete
    assert tiles.tile(9, 0, 0).is_whole
    store.finish()
    for number, pixels in enumerate(before):
        np.testing.assert_array_equal(pixels, level(tiles, number)[0])


def test_a_clip_has_tiles_of_each_frame(tmp_path: Path) -> None:
    expected = clip(3, 200, 300)
    tiles = pyramid(make_store(tmp_path / "a.zarr", expected, (200, 300)))
    for frame in range(3):
        np.testing.assert_array_equal(level(tiles, tiles.top, frame)[0], expected[frame])
    assert (expected[0] != expected[2]).any()
    with pytest.raises(StoreError, match="no tile"):
        tiles.tile(tiles.top, 0, 0, 3)


def test_a_damaged_block_leaves_a_gap_and_is_told(tmp_path: Path) -> None:
    expected = picture(512, 512)
    store = make_store(tmp_path / "a.zarr", expected, (128, 128))
    (file,) = (tmp_path / "a.zarr" / "0").rglob("c/0/1/2")
    flipped(file, 40)
    tiles = pyramid(Store.open(tmp_path / "a.zarr"))
    tile = tiles.tile(tiles.top, 0, 0)
    assert "0/c/0/1/2 is damaged" in tile.fault
    assert not tile.is_whole
    gap = np.zeros((512, 512), bool)
    gap[128:256, 256:384] = True
    np.testing.assert_array_equal(tile.drawn_HW, ~gap)
    np.testing.assert_array_equal(tile.pixels_HWC[~gap], expected[~gap])
    assert store.layout.levels[1].by_block
    assert not tiles.tile(tiles.top - 1, 0, 0).fault  # a file of its own


def test_a_level_that_is_lost_is_made_of_the_one_below(tmp_path: Path) -> None:
    expected = picture(1024, 1024)
    make_store(tmp_path / "a.zarr", expected, (128, 128))
    for file in (tmp_path / "a.zarr" / "2").rglob("c/0/0/0"):
        file.write_bytes(b"")
    tiles = pyramid(Store.open(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(level(tiles, tiles.top - 2)[0], halved(expected, 2))


def test_files_of_tiles_hold_their_pixels(tmp_path: Path) -> None:
    expected = picture(300, 200, 16)
    store = make_store(tmp_path / "a.zarr", expected, (128, 200), finish=False)
    draw(store, expected, 0, 128, None)
    tiles = pyramid(store)
    file = Image.open(io.BytesIO(tiles.tile(tiles.top, 0, 0).png(b"a profile")))
    assert file.info["icc_profile"] == b"a profile"
    found = np.asarray(file)
    assert found.shape == (300, 200, 4)
    np.testing.assert_array_equal(found[:128, :, :3], (expected[:128].astype(int) + 128) // 257)
    assert (found[:128, :, 3] == 255).all()
    assert not found[128:].any()


def test_what_was_asked_for_last_is_kept_up_to_a_size(tmp_path: Path) -> None:
    tiles = pyramid(make_store(tmp_path / "a.zarr", picture(3 * TILE, 64)))
    tiles.cache.most_bytes = 2 * TILE * 64 * 4
    kept = [tiles.tile(tiles.top, 0, row) for row in range(3)]
    assert tiles.cache.num_bytes <= tiles.cache.most_bytes
    assert tiles.tile(tiles.top, 0, 2) is kept[2]
    assert tiles.tile(tiles.top, 0, 0) is not kept[0]


@pytest.mark.parametrize("at", [(12, 0, 0), (-1, 0, 0), (9, 1, 0), (9, 0, 1), (9, -1, 0)])
def test_there_are_no_others(tmp_path: Path, at: tuple[int, int, int]) -> None:
    tiles = pyramid(make_store(tmp_path / "a.zarr", picture(300, 300)))
    with pytest.raises(StoreError, match="no tile"):
        tiles.tile(*at)
