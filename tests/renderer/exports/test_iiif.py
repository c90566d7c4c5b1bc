"""IIIF tiles are what info.json says, by the API's own rules, and nothing is there besides."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.export import make_store, picture, psnr
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import iiif
from frieze.renderer.exports.iiif import Options
from frieze.renderer.store.layout import halve
from support.tiled_folders import iiif_tiles, joined, tile
from tolerances import TILE_PSNR

# Of section 5.2 of the Image API 3.0.
REQUIRED = {
    "@context": "http://iiif.io/api/image/3/context.json",
    "id": "http://localhost:8000/a.iiif",
    "type": "ImageService3",
    "protocol": "http://iiif.io/api/image",
    "profile": "level0",
}


@pytest.mark.parametrize("size", [(530, 1300), (512, 512), (100, 1), (700, 600)])
def test_every_tile_that_is_listed_is_there_and_no_other_file(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels_HWC = picture(*size)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    out = iiif.export(Output.of(store.path, tmp_path / "a.iiif"))
    info = json.loads((out / "info.json").read_text())
    assert {key: info[key] for key in REQUIRED} == REQUIRED
    assert (info["height"], info["width"]) == size
    factors = info["tiles"][0]["scaleFactors"]
    listed = {"info.json", "frieze.json", "full/max/0/default.jpg"}
    for halvings, scale in enumerate(factors):
        assert scale == 2**halvings
        listed |= {name for _, _, name in iiif_tiles(info, scale)}
        assert psnr(joined(out, halvings), pixels_HWC) > TILE_PSNR
        pixels_HWC = halve(pixels_HWC)
    assert (factors == [1]) == (max(size) <= 512)
    for each in info["sizes"]:
        name = f"full/{each['width']},{each['height']}/0/default.jpg"
        assert tile(out / name).shape == (each["height"], each["width"], 3)
        listed.add(name)
    found = {f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()}
    assert found == listed


def test_full_max_is_as_large_as_info_json_allows(tmp_path: Path) -> None:
    pixels_HWC = picture(530, 1300)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    out = iiif.export(Output.of(store.path, tmp_path / "a.iiif"))
    info = json.loads((out / "info.json").read_text())
    whole_HWC = tile(out / "full/max/0/default.jpg")
    assert whole_HWC.shape == (417, info["maxWidth"], 3)
    small = Image.fromarray(pixels_HWC).resize((1024, 417), Image.Resampling.LANCZOS)
    assert psnr(whole_HWC, np.asarray(small)) > TILE_PSNR - 5
    assert psnr(whole_HWC, np.asarray(small)[::-1]) < 15, "control"
    small_out = iiif.export(
        Output.of(
            make_store(tmp_path / "b.zarr", picture(96, 80), (32, 32)).path, tmp_path / "b.iiif"
        )
    )
    assert "maxWidth" not in json.loads((small_out / "info.json").read_text())


def test_it_is_called_as_it_will_be_served(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    uri = "https://example.org/iiif/sun%20one"
    out = iiif.export(Output.of(store.path, tmp_path / "a.iiif"), Options(uri=f"{uri}/"))
    assert json.loads((out / "info.json").read_text())["id"] == uri


@pytest.mark.parametrize(
    "uri",
    ["", "poster", "/a/b", "ftp://a/b", "https://", "https://a/b?c", "http://a b", "http://[x"],
)
def test_what_is_no_address_is_refused_before_any_work(tmp_path: Path, uri: str) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    with pytest.raises(ExportError, match="is no address of a folder; https://"):
        iiif.export(Output.of(store.path, tmp_path / "a.iiif"), Options(uri=uri))
    assert os.listdir(tmp_path) == ["a.zarr"]
