"""What every export must do: called by the tests for each format found in `renderer/exports`.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from frieze.renderer import plugins
from frieze.renderer.errors import ExportError, FriezeError, StoreError
from frieze.renderer.store import LatentArray, Store, StoreLayout

NAMES = plugins.names("exports")

PICTURE = {
    "prompt": "a red sun over blue mountains, été 漢",
    "negative_prompt": "fog",
    "model": "/somewhere/private/demo",
    "num_inference_steps": 12,
    "guidance_scale": 3.5,
    "seed": 7,
}
RUN: dict[str, Any] = {
    "picture": PICTURE,
    "version": "0.1.0",
    "weights": "abc",
    "spec": {"out": "/somewhere/private/x.zarr", "dpi": 240.0},
}


def picture(height: int, width: int, bits: int = 8) -> np.ndarray:
    """Pixels [H, W, 3] with gradients, edges and noise in every bit."""
    y_HW, x_HW = np.mgrid[:height, :width]
    top = 2**bits
    noise_HW = (y_HW * 2654435761 + x_HW * 40503 >> 7) % 64
    planes = (y_HW * top // height, x_HW * top // width, (x_HW // 40 + y_HW // 40) % 2 * (top // 2))
    return np.stack([(plane + noise_HW) % top for plane in planes], axis=-1).astype(f"uint{bits}")


def make_store(
    path: Path,
    pixels_HWC: np.ndarray,
    block: tuple[int, int] = (256, 256),
    latents: tuple[LatentArray, ...] = (),
    finish: bool = True,
) -> Store:
    """A store that holds a picture."""
    height, width, _ = pixels_HWC.shape
    layout = StoreLayout(height, width, block, dtype=str(pixels_HWC.dtype), latents=latents)
    store = Store.create(path, layout, fingerprint="f", run=RUN)
    if finish:
        store.journal.append({"event": "block", "ids": store.write_rows(0, pixels_HWC)})
        store.finish()
    return store


def read(path: Path) -> np.ndarray:
    """Pixels [H, W, C] of a delivered file, by a library that did not write it where there is one.

    Pillow reads 16 bits as 8, so those are read by imagecodecs.
    """
    if path.suffix == ".zarr":
        return np.moveaxis(zarr.open_group(path, mode="r")["0"][:], 0, -1)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".png":
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes())
    raise AssertionError(f"teach the contract to read {path.suffix}")


def keeps_every_pixel(
    export: ModuleType, folder: Path, size: tuple[int, int], block: tuple[int, int], bits: int
) -> None:
    """Odd sizes and blocks, 8 and 16 bits: what goes in comes out."""
    pixels_HWC = picture(*size, bits)
    store = make_store(folder / "store.zarr", pixels_HWC, block)
    out = folder / f"out{export.suffixes[0]}"
    assert export.export(store.path, out) == out
    found_HWC = read(out)
    assert found_HWC.dtype == pixels_HWC.dtype
    np.testing.assert_array_equal(found_HWC, pixels_HWC)
    assert not np.array_equal(found_HWC, np.roll(pixels_HWC, 1, axis=0)), "control"


def replaces_only_when_told(export: ModuleType, folder: Path) -> None:
    """An existing file is refused, and kept; with overwrite it is replaced."""
    first, second = picture(96, 80), picture(96, 80)[::-1]
    stores = [
        make_store(folder / f"{i}.zarr", p, (32, 32)).path for i, p in enumerate((first, second))
    ]
    out = folder / f"out{export.suffixes[0]}"
    export.export(stores[0], out)
    with pytest.raises(ExportError, match="already there"):
        export.export(stores[1], out)
    np.testing.assert_array_equal(read(out), first)
    export.export(stores[1], out, overwrite=True)
    np.testing.assert_array_equal(read(out), second)
    with pytest.raises(ExportError):
        export.export(stores[1], stores[1], overwrite=True)
    Store.open(stores[1])


def never_replaces_a_stranger(export: ModuleType, folder: Path) -> None:
    """A folder that Frieze did not make stays, whatever it is told."""
    store = make_store(folder / "store.zarr", picture(64, 64), (32, 32))
    out = folder / f"out{export.suffixes[0]}"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(ExportError, match="folder"):
        export.export(store.path, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "years"


def leaves_nothing_after_an_error(export: ModuleType, folder: Path) -> None:
    """Half-drawn and damaged stores, places that cannot be: one error, no file."""
    suffix = export.suffixes[0]
    half = make_store(folder / "half.zarr", picture(96, 80), (32, 32), finish=False)
    half.journal.append({"event": "block", "ids": half.write_rows(0, picture(96, 80)[:32])})
    damaged = make_store(folder / "damaged.zarr", picture(96, 80), (32, 32))
    shard = damaged.path / "0" / "c" / "0" / "2" / "1"
    shard.write_bytes(shard.read_bytes()[:-9])
    before = sorted(os.listdir(folder))
    for store in (half, damaged):
        with pytest.raises(StoreError) as caught:
            export.export(store.path, folder / f"out{suffix}")
        assert "\n" not in str(caught.value)
    with pytest.raises(FriezeError, match="no folder"):
        export.export(damaged.path, folder / "nowhere" / f"out{suffix}")
    with pytest.raises(StoreError):
        export.export(folder / "absent.zarr", folder / f"out{suffix}")
    assert sorted(os.listdir(folder)) == before


def follows_a_store_that_is_being_drawn(export: ModuleType, folder: Path) -> None:
    """With `follow` it starts before the last block is there, and ends with all of them."""
    pixels_HWC = picture(160, 96)
    store = make_store(folder / "store.zarr", pixels_HWC, (32, 32), finish=False)
    out = folder / f"out{export.suffixes[0]}"
    made: list[Path] = []
    thread = threading.Thread(
        target=lambda: made.append(export.export(store.path, out, follow=True)), daemon=True
    )
    thread.start()
    for row in (32, 0, 96, 128, 64):
        time.sleep(0.05)
        assert not out.exists()
        rows_HWC = pixels_HWC[row : row + 32]
        store.journal.append({"event": "block", "ids": store.write_rows(row, rows_HWC)})
    store.finish()
    thread.join(60)
    assert made == [out]
    np.testing.assert_array_equal(read(out), pixels_HWC)


def says_what_drew_it(export: ModuleType, folder: Path) -> None:
    """Resolution and generation parameters survive; paths of the machine do not get out."""
    store = make_store(folder / "store.zarr", picture(96, 80), (32, 32))
    out = folder / f"out{export.suffixes[0]}"
    export.export(store.path, out, dpi=300)
    about, dpi = described(out)
    assert about["picture"]["prompt"] == PICTURE["prompt"]
    assert about["picture"]["model"] == "demo"
    assert dpi == pytest.approx(300, abs=0.01)
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    assert not any(b"private" in file.read_bytes() for file in files)


def makes_the_same_file_twice(export: ModuleType, folder: Path) -> None:
    """The same picture gives the same bytes: no dates, no chance."""
    store = make_store(folder / "store.zarr", picture(96, 80), (32, 32))
    found = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        out = export.export(store.path, folder / name / f"out{export.suffixes[0]}")
        files = [out] if out.is_file() else sorted(f for f in out.rglob("*") if f.is_file())
        found.append([file.read_bytes() for file in files])
    assert found[0] == found[1]


def described(path: Path) -> tuple[dict[str, Any], float]:
    """(generation parameters, dots per inch) that a delivered file states."""
    if path.suffix == ".zarr":
        about = dict(zarr.open_group(path, mode="r").attrs)["frieze"]
        return about, about["dpi"]
    with Image.open(path) as image:
        image.load()
        dpi = float(image.info["dpi"][0])
        text = image.info["frieze"] if path.suffix == ".png" else image.tag_v2[270]
    return json.loads(text), dpi
