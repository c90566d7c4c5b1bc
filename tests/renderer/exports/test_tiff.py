"""TIFF: readable everywhere, small in memory, and written live by many processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from contracts.export import RUN, make_store, picture
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import tiff
from frieze.renderer.store.layout import StoreLayout, halve
from frieze.renderer.store.store import Store
from support.forkserver import Program
from tolerances import AMPLE

# What a 16384 x 16384 export may hold, interpreter and libraries included.
MOST_MEGABYTES = 300


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    tests = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"},
    )


def peak_megabytes(store: Path, out: Path) -> float:
    """Peak resident memory of a process that exports a store.

    From the kernel's count for the new program: `ru_maxrss` would count its parent's size too.
    """
    code = """
import re
from pathlib import Path
from frieze.renderer.codecs.output import Output
from frieze.renderer.exports import tiff
tiff.export(Output.of(sys.argv[1], sys.argv[2]))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""
    process = python(code, store, out)
    output, _ = process.communicate(timeout=AMPLE)
    assert process.returncode == 0
    return float(output)


def cheap_store(path: Path, height: int, width: int) -> Store:
    """A store of one block row, repeated."""
    store = Store.create(path, StoreLayout(height, width, (512, 512)), fingerprint="", run=RUN)
    rows_HWC = picture(512, width)
    for row in range(0, height, 512):
        store.journal.append({"event": "block", "ids": store.write_rows(row, rows_HWC)})
    store.finish()
    return store


def test_the_pyramid_is_in_subifds(tmp_path: Path) -> None:
    pixels_HWC = picture(1100, 900)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    out = tiff.export(Output.of(store.path, tmp_path / "a.tif"))
    with tifffile.TiffFile(out) as file:
        assert file.is_bigtiff
        page = file.pages.first
        assert page.predictor == 2
        assert page.tile == (512, 512)
        assert "trainedAlgorithmicMedia" in page.tags[700].value.decode()
        assert page.tags[305].value.startswith("frieze")
        pages = [page, *page.pages]
        assert len(pages) == store.layout.num_levels == 4
        for found in pages:
            np.testing.assert_array_equal(found.asarray(), pixels_HWC)
            pixels_HWC = halve(pixels_HWC)


def test_pillow_and_libtiff_read_it(tmp_path: Path) -> None:
    pixels_HWC = picture(600, 500)
    store = make_store(tmp_path / "a.zarr", pixels_HWC)
    for classic in (False, True):
        out = tiff.export(
            Output.of(store.path, tmp_path / f"{classic}.tif"), tiff.Options(classic=classic)
        )
        with Image.open(out) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels_HWC)
            assert image.info["dpi"] == (240, 240)
        with tifffile.TiffFile(out) as file:
            assert file.is_bigtiff is not classic
        if shutil.which("tiffinfo") and shutil.which("tiffcp"):
            told = subprocess.run(["tiffinfo", out], capture_output=True, text=True, check=True)
            assert "Image Width: 500 Image Length: 600" in told.stdout
            assert "Resolution: 240, 240 pixels/inch" in told.stdout
            copy = tmp_path / "copy.tif"
            subprocess.run(["tiffcp", "-c", "none", out, copy], check=True, capture_output=True)
            np.testing.assert_array_equal(tifffile.imread(copy), pixels_HWC)


def test_a_classic_tiff_beyond_4_gib_is_refused(tmp_path: Path) -> None:
    layout = StoreLayout(40960, 40960, (512, 512))
    store = Store.create(tmp_path / "a.zarr", layout, fingerprint="", run=RUN)
    with pytest.raises(ExportError, match="BigTIFF"):
        tiff.export(Output.of(store.path, tmp_path / "a.tif"), tiff.Options(classic=True))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    peaks = []
    for height in (2048, 16384):
        store = cheap_store(tmp_path / f"{height}.zarr", height, 2048)
        peaks.append(peak_megabytes(store.path, tmp_path / f"{height}.tif"))
    grown = (16384 - 2048) * 2048 * 3 / 2**20
    assert peaks[1] - peaks[0] < grown / 2, peaks
    assert peaks[1] < MOST_MEGABYTES


@pytest.mark.slow
def test_a_16384_export_holds_less_than_300_megabytes(tmp_path: Path) -> None:
    store = cheap_store(tmp_path / "a.zarr", 16384, 16384)
    out = tmp_path / "a.tif"
    assert peak_megabytes(store.path, out) < MOST_MEGABYTES
    with tifffile.TiffFile(out) as file:
        assert file.pages.first.shape == (16384, 16384, 3)
        for level, page in enumerate([file.pages.first, *file.pages.first.pages]):
            tile, (_, _, top, left, _), _ = list(page.segments())[-1]
            assert tile is not None
            rows_HWC = store.read_rows(top, page.shape[0], level)
            height, width = rows_HWC.shape[0], page.shape[1] - left
            np.testing.assert_array_equal(tile[0, :height, :width], rows_HWC[:, left:])


# Live


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tile", [64, 256])
def test_rows_written_live_in_any_order_make_the_picture(
    tmp_path: Path, bits: int, tile: int
) -> None:
    pixels_HWC = picture(1000, 744, bits)
    out = tmp_path / "a.tif"
    tiff.create_tiled(out, 1000, 744, tile=tile, bits=bits, dpi=150, description={"seed": 7})
    size = out.stat().st_size
    for row in (768, 0, 512, 256):
        tiff.write_tiles(out, row, pixels_HWC[row : row + 256])
    assert out.stat().st_size == size
    np.testing.assert_array_equal(tifffile.imread(out), pixels_HWC)
    with tifffile.TiffFile(out) as file:
        assert file.pages.first.description == '{"seed": 7}'
        assert file.pages.first.compression == 1
    with Image.open(out) as image:
        assert image.info["dpi"] == (150, 150)
        if bits == 8:
            np.testing.assert_array_equal(np.asarray(image), pixels_HWC)


def test_several_processes_write_live_and_lose_nothing(tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    tiff.create_tiled(out, 2048, 300, tile=64)
    code = """
import sys
from contracts.export import picture
from frieze.renderer.exports import tiff
pixels = picture(2048, 300)
for row in range(64 * int(sys.argv[2]), 2048, 192):
    tiff.write_tiles(sys.argv[1], row, pixels[row : row + 64])
"""
    writers = [Program(code, str(out), str(rank)) for rank in range(3)]
    for writer in writers:
        writer.communicate(timeout=AMPLE)
        assert writer.returncode == 0
    np.testing.assert_array_equal(tifffile.imread(out), picture(2048, 300))


def test_rows_that_cut_a_live_tile_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    tiff.create_tiled(out, 200, 100, tile=64)
    for row, num_rows in ((32, 64), (0, 40), (192, 16)):
        with pytest.raises(ExportError, match="cut through"):
            tiff.write_tiles(out, row, picture(num_rows, 100))
    for rows_HWC in (picture(64, 99), picture(64, 100, 16)):
        with pytest.raises(ExportError, match="takes rows"):
            tiff.write_tiles(out, 0, rows_HWC)
    tiff.write_tiles(out, 192, picture(8, 100))
    assert not tifffile.imread(out)[:192].any()


def test_a_live_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    tiff.create_tiled(out, 128, 64, tile=64)
    tiff.write_tiles(out, 0, picture(64, 64))
    with pytest.raises(ExportError, match="already there"):
        tiff.create_tiled(out, 64, 32, tile=16)
    tiff.create_tiled(out, 64, 32, tile=16, overwrite=True)
    tiff.write_tiles(out, 16, picture(16, 32))
    np.testing.assert_array_equal(tifffile.imread(out)[16:32], picture(16, 32))


def test_only_a_tiff_made_for_it_is_written_live(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    packed = tiff.export(Output.of(store.path, tmp_path / "a.tif"))
    other = tmp_path / "b.tif"
    other.write_bytes(b"not a TIFF")
    for path in (packed, other):
        before = path.read_bytes()
        with pytest.raises(ExportError, match="live"):
            tiff.write_tiles(path, 0, picture(64, 64))
        assert path.read_bytes() == before


def test_a_live_file_is_refused_where_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="multiple of 16"):
        tiff.create_tiled(tmp_path / "a.tif", 64, 64, tile=40)
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match="free"):
        tiff.create_tiled(tmp_path / "a.tif", 4096, 4096)
    assert not os.listdir(tmp_path)


def test_the_tile_divides_the_block() -> None:
    assert [tiff.tile_side(side) for side in (512, 1024, 96, 48, 720)] == [512, 512, 96, 48, 240]
    with pytest.raises(ExportError, match="multiples of 16"):
        tiff.tile_side(100)
