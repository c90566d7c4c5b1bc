"""AVIF as a grid of tiles: others' decoders put them together, with alpha, bits and tags."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import pyvips
from PIL import Image

from contracts.export import make_store, psnr
from frieze.renderer.codecs import avif_grid
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import avif
from frieze.renderer.store.layout import LatentArray, StoreLayout
from support.peaks import peak_bytes


def smooth(height: int, width: int, bits: int = 8) -> np.ndarray:
    """Pixels [H, W, 3] that a coder keeps well, no two places alike."""
    y_HW, x_HW = np.mgrid[:height, :width]
    planes = (y_HW / height, x_HW / width, (np.sin(x_HW / 40 + y_HW / 90) + 1) / 2)
    return np.rint(np.stack(planes, axis=-1) * (2**bits - 1)).astype(f"uint{bits}")


@pytest.mark.parametrize("size", [(1100, 1040), (1030, 20), (20, 1030), (60, 70), (1, 1)])
def test_tiles_are_put_together_by_two_decoders(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels_HWC = smooth(*size)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (512, 512))
    out = avif.export(Output.of(store.path, tmp_path / "a.avif", dpi=254), avif.Options(speed=10))
    with Image.open(out) as image:
        found_HWC, tags = np.asarray(image), image.getexif()
        assert "trainedAlgorithmicMedia" in image.info["xmp"].decode()
    assert psnr(found_HWC, pixels_HWC) > 40
    assert size == (1, 1) or psnr(found_HWC, np.flip(pixels_HWC, (0, 1))) < 20, "control"
    other = pyvips.Image.new_from_file(str(out))
    assert psnr(other.numpy()[..., :3], pixels_HWC) > 40
    assert tags[282] == 254
    assert json.loads(tags[270])["picture"]["seed"] == 7


@pytest.mark.parametrize(("told", "bits"), [("store", 12), ("10", 10), ("8", 8)])
def test_16_bits_give_as_many_as_are_asked_for(tmp_path: Path, told: str, bits: int) -> None:
    pixels_HWC = smooth(96, 80, 16)
    store = make_store(tmp_path / "a.zarr", pixels_HWC, (32, 32))
    options = avif.Options(bits=told, quality=100)
    data = avif.export(Output.of(store.path, tmp_path / "a.avif"), options).read_bytes()
    found_HWC = imagecodecs.avif_decode(data)
    assert found_HWC.max() >= 2**bits - 2
    off = np.abs(found_HWC / (2**bits - 1) - pixels_HWC / 65535).max()
    assert off < 4 / 2**bits


def test_alpha_is_a_grid_of_its_own(tmp_path: Path) -> None:
    size = (1030, 64)
    latents = (LatentArray("alpha", (1, 1, 1, *size), chunk_rows=512),)
    store = make_store(tmp_path / "a.zarr", smooth(*size), (512, 64), latents)
    values_HW = np.linspace(0.2, 1, size[0], dtype=np.float32)[:, None].repeat(64, axis=1)
    store.save_latents(0, 0, slice(0, size[0]), values_HW[None, None])
    out = avif.export(Output.of(store.path, tmp_path / "a.avif"), avif.Options(speed=10))
    with Image.open(out) as image:
        assert image.mode == "RGBA"
        alpha_HW = np.asarray(image)[..., 3]
    assert np.abs(alpha_HW / 255 - values_HW).max() < 4 / 255


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((32769, 64), "AVIF ends at 32768 pixels a side, and the picture is 64x32769; use"),
        ((32768, 8256), "readers of AVIF take 268435456 pixels, and the picture has 270532608"),
    ],
)
def test_what_no_reader_takes_is_one_line(size: tuple[int, int], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        avif.check(Path("a.avif"), StoreLayout(*size, (64, 64)))
    avif.check(Path("a.avif"), StoreLayout(16384, 16384, (64, 64)))


def test_a_tall_picture_takes_the_memory_of_a_row_of_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = []
    for height in (2048, 4096):
        pixels_HWC = np.broadcast_to(smooth(1, 80), (height, 80, 3))
        store = make_store(tmp_path / f"{height}.zarr", pixels_HWC, (512, 80))
        out = tmp_path / f"{height}.avif"
        options = avif.Options(speed=10, workers=1)
        peaks.append(
            peak_bytes(
                lambda store=store, out=out, options=options: avif.export(
                    Output.of(store.path, out), options
                )
            )
        )
    assert peaks[1] < 1.3 * peaks[0]
    assert avif_grid.tile_sides((4096, 80), has_alpha=False) == (512, 80)


@pytest.mark.parametrize("has_alpha", [True, False])
@pytest.mark.parametrize(
    "size", [(16384, 16384), (32768, 8192), (8192, 32768), (11264, 11264), (32768, 64), (64, 32768)]
)
def test_no_file_has_more_items_than_readers_open(size: tuple[int, int], has_alpha: bool) -> None:
    rows, columns = avif_grid.tile_sides(size, has_alpha=has_alpha)
    tiles = -(-size[0] // rows) * -(-size[1] // columns)
    assert rows <= 512
    assert (1 + has_alpha) * tiles + 4 <= 256
