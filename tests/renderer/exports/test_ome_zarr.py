"""The OME-Zarr export is a clean picture: valid metadata, all levels, no working state."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import ome_zarr_models.v05
import pytest
import tensorstore
import zarr

from contracts.export import clip, make_store, picture
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError, StoreError
from frieze.renderer.exports import ome_zarr
from frieze.renderer.store.layout import LatentArray, halve
from frieze.renderer.store.store import Store


def test_it_holds_all_levels_and_nothing_else(tmp_path: Path) -> None:
    pixels_HWC = picture(600, 500)
    latents = (LatentArray("0", (2, 4, 1, 8, 8), 8),)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, latents=latents)
    out = ome_zarr.export(Output.of(store.path, tmp_path / "b.zarr"))
    assert sorted(os.listdir(out)) == ["0", "1", "2", "zarr.json"]
    group = zarr.open_group(out, mode="r")
    ome_zarr_models.v05.Image.from_zarr(group)
    for level in range(3):
        driver = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{out}/{level}"}}
        found_CHW = tensorstore.open(driver).result().read().result()
        np.testing.assert_array_equal(np.moveaxis(found_CHW, 0, -1), pixels_HWC)
        pixels_HWC = halve(pixels_HWC)
    with pytest.raises(StoreError, match="no Frieze store"):
        Store.open(out)


def test_a_working_store_is_never_replaced(tmp_path: Path) -> None:
    one = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    other = make_store(tmp_path / "b.zarr", picture(64, 64), (32, 32))
    with pytest.raises(ExportError, match="did not make"):
        ome_zarr.export(Output.of(one.path, other.path, overwrite=True))
    assert Store.open(other.path).is_complete


def test_a_clip_keeps_its_frames_levels_and_rate(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 300, 500), (64, 500), fps=12.5)
    out = ome_zarr.export(Output.of(store.path, tmp_path / "b.zarr"))
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(out, mode="r"))
    dataset = image.attributes.ome.multiscales[0].datasets[0]
    assert dataset.coordinateTransformations[0].scale == [0.08, 1, 1, 1]
    for level in store.layout.levels:
        driver = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{out}/{level.index}"}}
        found_TCHW = tensorstore.open(driver).result().read().result()
        for frame in range(3):
            rows_HWC = store.read_rows(0, level.height, level.index, frame)
            np.testing.assert_array_equal(np.moveaxis(found_TCHW[frame], 0, -1), rows_HWC)
