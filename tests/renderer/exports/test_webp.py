"""WebP: whole pictures, lossless where asked, no larger than the format or the memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from contracts.export import make_store, picture
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import webp
from frieze.renderer.store.layout import LatentArray, StoreLayout

ALPHA = (LatentArray("alpha", (1, 1, 1, 64, 80), chunk_rows=64),)


def test_another_library_reads_every_pixel_and_the_tags(tmp_path: Path) -> None:
    pixels_HWC = picture(64, 80)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32))
    options = webp.Options(lossless=True)
    out = webp.export(Output.of(store.path, tmp_path / "a.webp", dpi=254), options)
    image = pyvips.Image.new_from_file(str(out))
    assert (image.numpy() == pixels_HWC).all()
    assert b"trainedAlgorithmicMedia" in image.get("xmp-data")
    with Image.open(out) as read:
        assert read.getexif()[282] == 254
        assert json.loads(read.getexif()[270])["picture"]["seed"] == 7
    lossy = webp.export(Output.of(store.path, tmp_path / "b.webp"))
    assert not (pyvips.Image.new_from_file(str(lossy)).numpy() == pixels_HWC).all(), "control"


def test_alpha_is_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 80), (32, 32), ALPHA)
    values_HW = np.linspace(0, 1, 80, dtype=np.float32)[None].repeat(64, axis=0)
    store.save_latents(0, 0, slice(0, 64), values_HW[None, None])
    with Image.open(webp.export(Output.of(store.path, tmp_path / "a.webp"))) as image:
        alpha_HW = np.asarray(image)[..., 3]
    np.testing.assert_array_equal(alpha_HW, np.rint(values_HW * 255))


def test_what_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match=r"WebP ends at 16383 pixels a side, .* use \.tif"):
        webp.check(Path("a.webp"), StoreLayout(16384, 64, (64, 64)))
    monkeypatch.setattr(webp, "memory_bytes", lambda: 2**30)
    layout = StoreLayout(16383, 8192, (64, 64))
    with pytest.raises(ExportError, match=r"takes 1\.5 GiB, and this host has 1\.0 GiB; use"):
        webp.check(Path("a.webp"), layout)
    webp.check(Path("a.webp"), StoreLayout(8192, 8192, (64, 64)))
    with pytest.raises(ExportError, match=r"takes 2\.5 GiB"):
        webp.check(Path("a.webp"), StoreLayout(8192, 8192, (64, 64)), webp.Options(lossless=True))
