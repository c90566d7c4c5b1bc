"""What every export must do: called by the tests for each format found in `renderer/exports`.

`kind` is what goes in, a picture or a clip; every format is run for all that it takes.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pypdf
import pytest
import tifffile
import zarr
from PIL import Image

from frieze.renderer import plugins
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import ExportError, FriezeError, StoreError
from frieze.renderer.store.layout import LatentArray, StoreLayout
from frieze.renderer.store.store import Store
from support.exr_files import read_exr, srgb_light
from support.tiled_folders import joined
from tolerances import AMPLE, HALF_STEP, PICTURE_PSNR, QUARTER_PSNR, TILE_PSNR, VIDEO_PSNR

NAMES = plugins.names("exports")
KINDS = ("picture", "clip")
FPS = 24.0
CLIPS = {".mp4", ".mov", ".mkv"}
TILED = {".dzi", ".iiif"}
LOSSY_PICTURES = {".jpg", ".jpeg", ".webp", ".avif"}
LOSSY = {
    **dict.fromkeys(CLIPS, VIDEO_PSNR),
    **dict.fromkeys(TILED, TILE_PSNR),
    **dict.fromkeys(LOSSY_PICTURES, PICTURE_PSNR),
    ".webp": QUARTER_PSNR,
}
OTHER_NAMES = {".tiff", ".jpeg"}
LIGHT = {".exr", ".exrs"}

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
    "sampler": "DPM++ 2M Karras",
    "guidance": {"cfg": 2.5, "embedded": 4.0},
    "spec": {"out": "/somewhere/private/x.zarr", "dpi": 240.0},
}


def picture(height: int, width: int, bits: int = 8) -> np.ndarray:
    """Pixels [H, W, 3] with gradients, edges and noise in every bit."""
    y_HW, x_HW = np.mgrid[:height, :width]
    top = 2**bits
    noise_HW = (y_HW * 2654435761 + x_HW * 40503 >> 7) % 64
    planes = (y_HW * top // height, x_HW * top // width, (x_HW // 40 + y_HW // 40) % 2 * (top // 2))
    return np.stack([(plane + noise_HW) % top for plane in planes], axis=-1).astype(f"uint{bits}")


def clip(frames: int, height: int, width: int, bits: int = 8) -> np.ndarray:
    """Frames [T, H, W, 3] of moving gradients, which encoders keep well."""
    t, y, x = np.mgrid[:frames, :height, :width].astype(np.float64)
    waves = (np.sin(x / 40 + t / 5), np.cos(y / 30 - t / 7), np.sin((x + y) / 50 + t / 9))
    return np.rint((np.stack(waves, axis=-1) / 2 + 0.5) * (2**bits - 1)).astype(f"uint{bits}")


def content(kind: str, height: int, width: int, bits: int = 8) -> np.ndarray:
    """A picture [H, W, 3], or a clip [5, H, W, 3]."""
    return picture(height, width, bits) if kind == "picture" else clip(5, height, width, bits)


def takes(export: ModuleType, kind: str) -> bool:
    """Whether a format is for pictures, or for clips."""
    layout = StoreLayout(64, 64, (32, 32), **({} if kind == "picture" else {"frames": 5, "fps": 8}))
    try:
        export.check(Path(f"out{export.suffixes[0]}"), layout)
    except ExportError:
        return False
    return True


def make_store(
    path: Path,
    pixels: np.ndarray,
    block: tuple[int, int] = (256, 256),
    latents: tuple[LatentArray, ...] = (),
    finish: bool = True,
    fps: float = FPS,
) -> Store:
    """A store that holds a picture [H, W, C] or a clip [T, H, W, C]."""
    *frames, height, width, _ = pixels.shape
    time = {"frames": frames[0], "fps": fps} if frames else {}
    layout = StoreLayout(height, width, block, dtype=str(pixels.dtype), latents=latents, **time)
    store = Store.create(path, layout, fingerprint="f", run=RUN)
    if finish:
        for frame, row in places(store.layout, height):
            draw(store, pixels, row, height, frame)
        store.finish()
    return store


def places(layout: StoreLayout, rows: int) -> list[tuple[int | None, int]]:
    """(frame, first row) of every strip of `rows` rows, in order."""
    frames = [None] if layout.frames is None else range(layout.frames)
    return [(frame, row) for frame in frames for row in range(0, layout.height, rows)]


def draw(store: Store, pixels: np.ndarray, row: int, rows: int, frame: int | None) -> None:
    """Write some rows and say so in the journal."""
    rows_HWC = (pixels if frame is None else pixels[frame])[row : row + rows]
    store.journal.append({"event": "block", "ids": store.write_rows(row, rows_HWC, frame)})


def read(path: Path) -> np.ndarray:
    """Pixels [(T,) H, W, C] of what was delivered, by others' code where there is some.

    Pillow reads 16 bits as 8, so those are read by imagecodecs. Clips and tiles come in 8 bits.
    OpenEXR's light is in proportion, not by a curve.
    """
    if path.suffix in CLIPS:
        with av.open(str(path)) as file:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    if path.suffix in TILED:
        return joined(path)
    if path.suffix == ".frames":
        return np.stack([tifffile.imread(file) for file in sorted(path.glob("*.tif"))])
    if path.suffix == ".zarr":
        return np.moveaxis(zarr.open_group(path, mode="r")["0"][:], -3, -1)
    if path.suffix == ".exrs":
        return np.stack([read_exr(file)[0] for file in sorted(path.glob("*.exr"))])
    if path.suffix == ".exr":
        return read_exr(path)[0]
    if path.suffix in LOSSY_PICTURES:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".pdf":
        return page_image(path)
    if path.suffix == ".png":
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes())
    raise AssertionError(f"teach the contract to read {path.suffix}")


def page_image(path: Path) -> np.ndarray:
    """Pixels [H, W, C] of a page's only image, deflated."""
    image = pypdf.PdfReader(path).pages[0]["/Resources"]["/XObject"]["/Im0"]
    depth = ">u2" if image["/BitsPerComponent"] == 16 else "u1"
    pixels = np.frombuffer(image.get_data(), depth).astype(depth.replace(">", "="))
    return pixels.reshape(image["/Height"], image["/Width"], -1)


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal to noise in dB, of integers of any depth."""
    unit = [pixels / np.iinfo(pixels.dtype).max for pixels in (found, expected)]
    return float(-10 * np.log10(max(np.mean((unit[0] - unit[1]) ** 2), 1e-12)))


def is_same(path: Path, expected: np.ndarray) -> bool:
    """Whether a delivered file holds these pixels: all of them, or as well as encoders can."""
    found = read(path)
    if found.shape != expected.shape:
        return False
    if path.suffix in LOSSY:
        return psnr(found, expected) > LOSSY[path.suffix]
    if path.suffix in LIGHT:
        light = srgb_light(expected)
        return bool((np.abs(found - light) <= HALF_STEP * light + HALF_STEP**2).all())
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def keeps_every_pixel(
    export: ModuleType,
    kind: str,
    folder: Path,
    size: tuple[int, int],
    block: tuple[int, int],
    bits: int,
) -> None:
    """Odd sizes and blocks, 8 and 16 bits: what goes in comes out."""
    pixels = content(kind, *size, bits)
    store = make_store(folder / "store.zarr", pixels, block)
    for suffix in export.suffixes:
        out = folder / f"out{suffix}"
        if suffix in OTHER_NAMES:
            continue  # another name of the first
        assert export.export(Output.of(store.path, out)) == out
        assert is_same(out, pixels)
        assert not is_same(out, np.roll(pixels, size[0] // 2, axis=-3)), "control"


def takes_nothing_else(export: ModuleType, kind: str, folder: Path) -> None:
    """A clip in a picture's format, or a picture in a clip's: one error, before any work."""
    store = make_store(folder / "store.zarr", content(kind, 64, 64), (32, 32), finish=False)
    with pytest.raises(ExportError, match=r"use \.") as caught:
        export.export(Output.of(store.path, folder / f"out{export.suffixes[0]}"))
    assert "\n" not in str(caught.value)
    assert os.listdir(folder) == ["store.zarr"]


def replaces_only_when_told(export: ModuleType, kind: str, folder: Path) -> None:
    """An existing file is refused, and kept; with overwrite it is replaced."""
    first = content(kind, 96, 80)
    second = np.ascontiguousarray(np.flip(first, axis=-3))
    stores = [
        make_store(folder / f"{i}.zarr", p, (32, 32)).path for i, p in enumerate((first, second))
    ]
    out = folder / f"out{export.suffixes[0]}"
    export.export(Output.of(stores[0], out))
    with pytest.raises(ExportError, match="already there"):
        export.export(Output.of(stores[1], out))
    assert is_same(out, first)
    export.export(Output.of(stores[1], out, overwrite=True))
    assert is_same(out, second)
    assert not is_same(out, first), "control"
    with pytest.raises(ExportError):
        export.export(Output.of(stores[1], stores[1], overwrite=True))
    Store.open(stores[1])


def refuses_one_of_two(export: ModuleType, kind: str, folder: Path) -> None:
    """Two at the same time to one name: one is refused, however late, and the file is whole."""
    pixels = content(kind, 96, 80)
    store = make_store(folder / "store.zarr", pixels, (32, 80), finish=False)
    out = folder / f"out{export.suffixes[0]}"
    told: list[object] = []

    def deliver() -> None:
        try:
            told.append(export.export(Output.of(store.path, out, follow=True)))
        except ExportError as error:
            told.append(str(error))

    threads = [threading.Thread(target=deliver, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(list(folder.glob(".out.*.part"))) < 2:
        time.sleep(0.01)
    for frame, row in places(store.layout, 32):
        draw(store, pixels, row, 32, frame)
    store.finish()
    for thread in threads:
        thread.join(AMPLE)
    told.sort(key=str)
    assert sorted(map(type, told), key=str) == sorted([type(out), str], key=str)
    assert f"{out} appeared meanwhile; use --overwrite or another name" in told
    assert is_same(out, pixels)
    assert sorted(os.listdir(folder)) == sorted([out.name, "store.zarr"])


def never_replaces_a_stranger(export: ModuleType, kind: str, folder: Path) -> None:
    """A folder that Frieze did not make stays, whatever it is told."""
    store = make_store(folder / "store.zarr", content(kind, 64, 64), (32, 32))
    out = folder / f"out{export.suffixes[0]}"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(ExportError, match="folder"):
        export.export(Output.of(store.path, out, overwrite=True))
    assert (out / "thesis.txt").read_text() == "years"


def leaves_nothing_after_an_error(export: ModuleType, kind: str, folder: Path) -> None:
    """Half-drawn and damaged stores, places that cannot be: one error, no file."""
    suffix = export.suffixes[0]
    pixels = content(kind, 96, 80)
    half = make_store(folder / "half.zarr", pixels, (32, 32), finish=False)
    draw(half, pixels, 0, 32, None if kind == "picture" else 0)
    damaged = make_store(folder / "damaged.zarr", pixels, (32, 32))
    frame = "" if kind == "picture" else "4"
    shard = damaged.path / "0" / "c" / frame / "0" / "2" / "1"
    shard.write_bytes(shard.read_bytes()[:-9])
    before = sorted(os.listdir(folder))
    for store in (half, damaged):
        with pytest.raises(StoreError) as caught:
            export.export(Output.of(store.path, folder / f"out{suffix}"))
        assert "\n" not in str(caught.value)
    with pytest.raises(FriezeError, match="no folder"):
        export.export(Output.of(damaged.path, folder / "nowhere" / f"out{suffix}"))
    with pytest.raises(StoreError):
        export.export(Output.of(folder / "absent.zarr", folder / f"out{suffix}"))
    assert sorted(os.listdir(folder)) == before


def follows_a_store_that_is_being_drawn(export: ModuleType, kind: str, folder: Path) -> None:
    """With `follow` it starts before the last block is there, and ends with all of them."""
    pixels = content(kind, 160, 96)
    store = make_store(folder / "store.zarr", pixels, (32, 32), finish=False)
    out = folder / f"out{export.suffixes[0]}"
    made: list[Path] = []
    thread = threading.Thread(
        target=lambda: made.append(export.export(Output.of(store.path, out, follow=True))),
        daemon=True,
    )
    thread.start()
    left = places(store.layout, 32)
    for frame, row in (*left[1:3], left[0], *left[:2:-1]):
        time.sleep(0.2 / len(left))
        assert not out.exists()
        draw(store, pixels, row, 32, frame)
    store.finish()
    thread.join(AMPLE)
    assert made == [out]
    assert is_same(out, pixels)
    (folder / "afterwards").mkdir()
    later = export.export(Output.of(store.path, folder / "afterwards" / out.name))
    assert contents(later) == contents(out)


def says_what_drew_it(export: ModuleType, kind: str, folder: Path) -> None:
    """Resolution and generation parameters survive; paths of the machine do not get out."""
    store = make_store(folder / "store.zarr", content(kind, 96, 80), (32, 32))
    out = folder / f"out{export.suffixes[0]}"
    export.export(Output.of(store.path, out, dpi=300))
    about, dpi = described(out)
    assert about["picture"]["prompt"] == PICTURE["prompt"]
    assert about["picture"]["model"] == "demo"
    assert dpi is None if out.suffix in CLIPS else dpi == pytest.approx(300, abs=0.01)
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    assert not any(b"private" in file.read_bytes() for file in files)


def makes_the_same_file_twice(export: ModuleType, kind: str, folder: Path) -> None:
    """The same picture gives the same bytes: no dates, no chance."""
    store = make_store(folder / "store.zarr", content(kind, 96, 80), (32, 32))
    found: list[list[bytes]] = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        found.append([])
        for suffix in export.suffixes:
            out = export.export(Output.of(store.path, folder / name / f"out{suffix}"))
            found[-1] += contents(out)
    assert found[0] == found[1]


def contents(path: Path) -> list[bytes]:
    """The bytes of a delivered file, or of each in a folder, in the order of their names."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return [file.read_bytes() for file in files]


def described(path: Path) -> tuple[dict[str, Any], float | None]:
    """(generation parameters, dots per inch) that a delivered file states."""
    if path.suffix in CLIPS:
        with av.open(str(path)) as file:
            return json.loads({k.lower(): v for k, v in file.metadata.items()}["description"]), None
    if path.suffix in TILED:
        about = json.loads((path / "frieze.json").read_text())
        return about, about["dpi"]
    if path.suffix == ".frames":
        path = path / "000004.tif"
    if path.suffix == ".zarr":
        about = dict(zarr.open_group(path, mode="r").attrs)["frieze"]
        return about, about["dpi"]
    if path.suffix in LIGHT:
        _, about = read_exr(path if path.is_file() else min(path.glob("*.exr")))
        return json.loads(about["frieze"]), about["xDensity"]
    if path.suffix in LOSSY_PICTURES:
        with Image.open(path) as image:
            tags = image.getexif()
            return json.loads(tags[270]), float(tags[282])
    if path.suffix == ".pdf":
        reader = pypdf.PdfReader(path)
        width = reader.pages[0]["/Resources"]["/XObject"]["/Im0"]["/Width"]
        about = json.loads(reader.metadata["/frieze"])
        return about, 72 * width / float(reader.pages[0].mediabox.width)
    with Image.open(path) as image:
        image.load()
        dpi = float(image.info["dpi"][0])
        text = image.info["frieze"] if path.suffix == ".png" else image.tag_v2[270]
    return json.loads(text), dpi
