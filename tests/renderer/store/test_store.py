"""The store gives back what it was given: pixels, pyramid and latents, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from contracts.export import make_store, picture
from frieze.renderer.errors import StoreError
from frieze.renderer.store.layout import LatentArray, StoreLayout, halve, required_bytes
from frieze.renderer.store.store import Store

LATENTS = (LatentArray("0", (2, 4, 1, 24, 10), 8), LatentArray("1", (2, 4, 1, 50, 20), 16))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("size", "block"), [((1000, 744), (256, 256)), ((777, 300), (128, 300)), ((90, 31), (512, 512))]
)
def test_pixels_and_every_pyramid_level_come_back(
    tmp_path: Path, size: tuple[int, int], block: tuple[int, int], bits: int
) -> None:
    pixels_HWC = picture(*size, bits)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, block)
    found_HWC = np.concatenate([rows for _, rows in Store.open(store.path).in_order(100)])
    np.testing.assert_array_equal(found_HWC, pixels_HWC)
    for level in store.layout.levels:
        np.testing.assert_array_equal(store.read_rows(0, level.height, level.index), pixels_HWC)
        pixels_HWC = halve(pixels_HWC)


def test_small_levels_that_no_block_owns_are_built_at_the_end(tmp_path: Path) -> None:
    pixels_HWC = picture(1000, 1030)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (64, 64), finish=False)
    assert [level.by_block for level in store.layout.levels] == [True, False, False, False]
    store.journal.append({"event": "block", "ids": store.write_rows(0, pixels_HWC)})
    with pytest.raises(StoreError, match="missing"):
        store.read_rows(0, 1, 3)
    store.finish()
    for level in store.layout.levels:
        np.testing.assert_array_equal(store.read_rows(0, level.height, level.index), pixels_HWC)
        pixels_HWC = halve(pixels_HWC)


def test_a_black_block_is_written_as_a_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", np.zeros((64, 64, 3), np.uint8), (32, 32))
    files = [file for file in (store.path / "0" / "c").rglob("*") if file.is_file()]
    assert len(files) == 4
    plain = zarr.open_array(store.path / "0", mode="r+")
    plain[:, :32, :32] = 0
    assert len([file for file in files if file.exists()]) == 3, "control"


@pytest.mark.parametrize(("row", "num_rows"), [(16, 32), (0, 48), (96, 36), (0, 0), (128, 32)])
def test_rows_that_cut_a_block_are_refused(tmp_path: Path, row: int, num_rows: int) -> None:
    store = make_store(tmp_path / "a.zarr", picture(130, 40), (32, 32), finish=False)
    with pytest.raises(StoreError, match="cut through"):
        store.write_rows(row, picture(num_rows, 40) if num_rows else np.zeros((0, 40, 3), "u1"))
    assert not (store.path / "0" / "c").exists()
    assert list(store.write_rows(128, picture(2, 40))) == ["4/0", "4/1"]


def test_rows_of_another_width_or_depth_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    for rows_HWC in (picture(32, 63), picture(32, 64, 16)):
        with pytest.raises(StoreError, match="this store takes"):
            store.write_rows(0, rows_HWC)


def test_halving_is_the_exact_mean_rounded_half_to_even() -> None:
    rng = np.random.default_rng(0)
    for kind in (np.uint8, np.uint16):
        pixels_HWC = rng.integers(0, np.iinfo(kind).max + 1, (64, 48, 3)).astype(kind)
        mean = pixels_HWC.reshape(32, 2, 24, 2, 3).astype(np.float64).mean(axis=(1, 3))
        np.testing.assert_array_equal(halve(pixels_HWC), np.rint(mean))
        assert (np.floor(mean) != np.rint(mean)).any(), "control"


@pytest.mark.parametrize(
    ("block", "why"), [((521, 521), "no chunk"), ((0, 32), "sizes"), ((2, 1042), "")]
)
def test_a_block_without_a_sensible_chunk_is_refused(block: tuple[int, int], why: str) -> None:
    if not why:
        assert StoreLayout(2000, 1042, block).levels[0].chunk == (2, 512)
        return
    with pytest.raises(StoreError, match=why):
        StoreLayout(2000, 2000, block)


def test_a_store_fits_in_the_bytes_it_asks_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise_HWC = rng.integers(0, 256, (500, 500, 3)).astype(np.uint8)
    store = make_store(tmp_path / "a.zarr", noise_HWC, (256, 256))
    used = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    assert noise_HWC.nbytes < used < required_bytes(store.layout)


def test_latents_come_back_bit_for_bit_for_any_bands(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), latents=LATENTS, finish=False)
    bits = np.random.default_rng(0).integers(0, 2**32, (4, 1, 50, 20), dtype=np.uint32)
    latents_CTHW = bits.view(np.float32)
    for start, stop in ((0, 16), (16, 48), (48, 50)):
        store.save_latents(1, 1, slice(start, stop), latents_CTHW[:, :, start:stop])
    for start, stop in ((0, 50), (7, 33)):
        found = Store.open(store.path).load_latents(1, 1, slice(start, stop))
        np.testing.assert_array_equal(found.view(np.uint32), bits[:, :, start:stop])


def test_a_crash_while_saving_leaves_the_other_slot(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), latents=LATENTS, finish=False)
    good, bad = np.ones((4, 1, 24, 10), "f4"), np.zeros((4, 1, 8, 10), "f4")
    store.save_latents(0, 0, slice(0, 24), good)
    store.save_latents(0, 1, slice(8, 16), bad)
    np.testing.assert_array_equal(store.load_latents(0, 0, slice(0, 24)), good)
    with pytest.raises(StoreError, match="never written"):
        store.load_latents(0, 1, slice(0, 24))


@pytest.mark.parametrize(("start", "stop"), [(4, 16), (0, 12), (0, 32), (8, 8)])
def test_latents_that_cut_a_chunk_are_refused(tmp_path: Path, start: int, stop: int) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), latents=LATENTS, finish=False)
    with pytest.raises(StoreError, match="cut through"):
        store.save_latents(0, 0, slice(start, stop), np.ones((4, 1, stop - start, 10), "f4"))
    with pytest.raises(StoreError, match="float32"):
        store.save_latents(0, 0, slice(0, 8), np.ones((4, 1, 8, 10), "f8"))
    with pytest.raises(StoreError, match="slot 2"):
        store.save_latents(0, 2, slice(0, 8), np.ones((4, 1, 8, 10), "f4"))


def test_other_libraries_open_the_picture(tmp_path: Path) -> None:
    import ome_zarr_models.v05
    import tensorstore
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    pixels_HWC = picture(600, 500)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (256, 256))
    pixels_CHW = np.moveaxis(pixels_HWC, -1, 0)
    group = zarr.open_group(store.path, mode="r")
    np.testing.assert_array_equal(group["0"][:], pixels_CHW)
    assert group.attrs["frieze"]["picture"]["seed"] == 7
    image = ome_zarr_models.v05.Image.from_zarr(group)
    assert [axis.name for axis in image.attributes.ome.multiscales[0].axes] == ["c", "y", "x"]
    driver = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.path}/0"}}
    found = tensorstore.open(driver).result()
    np.testing.assert_array_equal(found.read().result(), pixels_CHW)
    location = parse_url(store.path)
    assert location is not None
    levels = next(iter(Reader(location)())).data
    assert [level.shape for level in levels] == [(3, 600, 500), (3, 300, 250), (3, 150, 125)]
    np.testing.assert_array_equal(np.asarray(levels[0]), pixels_CHW)
    np.testing.assert_array_equal(np.asarray(levels[1])[:, 0, 0], halve(pixels_HWC)[0, 0])
