"""Memory of an export: the most that its whole process holds while it writes a large picture.

Each format, or those that are named, is written from one store by a process of its own, and some
of its rows are read back by others' libraries: wrong pixels, no number. Formats of clips are given
a clip of a smaller size. Prints a Markdown table; fails where one that writes in strips holds more
than 400 MB. `python -m bench.exports_memory [NAME ...]` in tests/.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from contracts.export import psnr, takes
from frieze.renderer import ExportError, plugins
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from support.exr_files import srgb_values
from support.tiled_folders import tile_row

SIDE, CLIP_SIDE, FRAMES, BLOCK = 16384, 2048, 3, 512
MOST = 400  # MB, of one that writes in strips
WHOLE = {"webp"}  # hold all pixels, and say so
CHECKED_ROWS, LEAST_PSNR = 64, 30.0
EXPORT = """
import sys
from frieze.renderer.outputs import exporting
if len(sys.argv) > 2:
    exporting.export(sys.argv[1], sys.argv[2], overwrite=False)
else:
    from frieze.renderer import plugins
    for name in plugins.names("exports"):
        plugins.load("exports", name)
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0])
"""


def rows_of(top: int, count: int, side: int, frame: int = 0) -> np.ndarray:
    """Pixels [count, side, 3] of gradients with grain, as a decoder makes them."""
    rng = np.random.default_rng((top, frame))
    y_HW, x_HW = np.mgrid[top : top + count, :side].astype(np.float32) / side
    planes = (y_HW, x_HW, np.sin(9 * y_HW * x_HW + frame) / 2 + 0.5)
    grain_HW = rng.normal(0, 1.5, y_HW.shape).astype(np.float32)
    return np.stack([np.clip(p * 250 + grain_HW, 0, 255) for p in planes], -1).astype(np.uint8)


def store(path: Path, side: int, frames: int | None = None) -> Path:
    """A finished store of so many pixels a side, drawn a row of blocks at a time."""
    time_axis = {} if frames is None else {"frames": frames, "fps": 24.0}
    made = Store.create(
        path, StoreLayout(side, side, (BLOCK, BLOCK), **time_axis), fingerprint="", run={}
    )
    for frame in [None] if frames is None else range(frames):
        for top in range(0, side, BLOCK):
            pixels_HWC = rows_of(top, BLOCK, side, frame or 0)
            ids = made.write_rows(top, pixels_HWC, frame)
            made.journal.append({"event": "block", "ids": ids})
    made.finish()
    return path


def peak(*words: str) -> int:
    """The most bytes in memory of a process that exports so; of no words, one that imports."""
    command = [sys.executable, "-c", EXPORT, *words]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(shown.stdout) * 1024


def read_rows(path: Path, side: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, pixels) of some rows of a picture; of none where nobody here reads the format."""
    places = [(index * (side - BLOCK) // 3) // BLOCK * BLOCK for index in range(4)]
    if path.suffix == ".avif":  # libheif, which pyvips has, stops at 2 GiB of pixels
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as read:
            pixels_HWC = np.asarray(read)
        yield from ((top, pixels_HWC[top : top + CHECKED_ROWS]) for top in places)
        return
    if path.suffix == ".exr":
        import OpenImageIO

        image = OpenImageIO.ImageInput.open(str(path))
        for top in places:
            end = top + CHECKED_ROWS
            light = image.read_scanlines(0, 0, top, end, 0, 0, 3, OpenImageIO.FLOAT)
            yield top, srgb_values(light)
    elif path.suffix in (".dzi", ".iiif"):
        for top in places:
            yield top, tile_row(path, top)[:CHECKED_ROWS]
    elif path.suffix == ".pdf" and (poppler := shutil.which("pdftoppm")):
        for top in places:
            words = ("-r", "300", "-x", "0", "-y", top, "-W", side, "-H", CHECKED_ROWS, path)
            drawn = subprocess.run([poppler, *map(str, words)], stdout=subprocess.PIPE, check=True)
            raw = np.frombuffer(drawn.stdout[-CHECKED_ROWS * side * 3 :], np.uint8)
            yield top, raw.reshape(CHECKED_ROWS, side, 3)
    elif path.suffix in (".tif", ".png", ".jpg", ".avif", ".webp"):
        import pyvips

        for top in places:
            image = pyvips.Image.new_from_file(str(path), access="sequential")
            yield top, image.crop(0, top, side, CHECKED_ROWS).numpy()


def measured(name: str, source: Path, side: int, folder: Path) -> int:
    """Print a row of the table, and return what was held at most, in bytes."""
    module = plugins.load("exports", name)
    out = folder / f"{name}{module.suffixes[0]}"
    try:
        module.check(out, Store.open(source).layout)
    except ExportError as error:
        print(f"| {name} | {side} x {side} | refused: {error.args[0].partition(': ')[2]} | | | |")
        return 0
    began = time.perf_counter()
    held = peak(str(source), str(out))
    seconds = time.perf_counter() - began
    read = 0
    if source.stem == "picture":
        for top, found_HWC in read_rows(out, side):
            close = psnr(found_HWC[..., :3], rows_of(top, BLOCK, side)[:CHECKED_ROWS])
            if close < LEAST_PSNR:
                sys.exit(f"{name}: rows from {top} on differ by {close:.1f} dB; no number")
            read += CHECKED_ROWS
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    frames = f" x {FRAMES}" if source.stem == "clip" else ""
    print(
        f"| {name} | {side} x {side}{frames} | {held / 1e6:.0f} | {size / 1e6:.0f} "
        f"| {seconds:.0f} | {read or '-'} |",
        flush=True,
    )
    return held


def main() -> int:
    """Print what each holds, and fail where one holds too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="exports; default: all")
    parser.add_argument("--side", type=int, default=SIDE, help=f"of the picture; default: {SIDE}")
    asked = parser.parse_args()
    names = asked.names or plugins.names("exports")
    too_much = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = [name for name in names if not takes(plugins.load("exports", name), "picture")]
        sources = {}
        if len(clips) < len(names):
            sources["picture"] = store(folder / "picture.zarr", asked.side)
        if clips:
            sources["clip"] = store(folder / "clip.zarr", CLIP_SIDE, FRAMES)
        print(f"{peak() / 1e6:.0f} MB are held by a process that has imported every format.\n")
        print("| export | pixels | MB held at most | MB written | seconds | rows read back |")
        print("|---|---|---|---|---|---|")
        for name in names:
            kind, side = ("clip", CLIP_SIDE) if name in clips else ("picture", asked.side)
            held = measured(name, sources[kind], side, folder)
            if held > MOST * 1e6 and name not in WHOLE:
                too_much.append(name)
    if too_much:
        print(f"\nmore than {MOST} MB: {', '.join(too_much)}")
    return int(bool(too_much))


if __name__ == "__main__":
    sys.exit(main())
