"""A large TIFF in other colours: the most that the process holds, and how near its colours are.

Each is written from one store by a process of its own; rows of it are read back by libvips and held
to formulas: wrong colours, no number. Prints a Markdown table, which `--out` keeps; fails where one
holds more than 400 MB. `python -m bench.colors [COLOR ...]` in tests/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

from bench.exports_memory import BLOCK, CHECKED_ROWS, MOST, SIDE, rows_of, store
from support.colorimetry import delta_e, inks, lab, press_profile, printed, xyz
from tolerances import COLOR_8_BITS, COLOR_ELSEWHERE

COLORS = ("adobe-rgb", "display-p3", "press")
EXPORT = """
import sys
from frieze.renderer.outputs import exporting
exporting.export(sys.argv[1], sys.argv[2], overwrite=False, color=sys.argv[3], intent="absolute")
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0])
"""


def farthest(path: Path, color: str, side: int) -> float:
    """CIE 1976 Delta E of rows of a file against what the store holds, of what can be printed."""
    most = 0.0
    for top in range(0, side, max(BLOCK, side // 4 // BLOCK * BLOCK)):
        given_HWC = rows_of(top, BLOCK, side)[:CHECKED_ROWS] / 255
        image = pyvips.Image.new_from_file(str(path), access="sequential")
        found_HWC = image.crop(0, top, side, CHECKED_ROWS).numpy() / 255
        expected = xyz("srgb", given_HWC)
        if color == "press":
            can = delta_e(lab(printed(inks(expected))), lab(expected)) < 0.01
            far = delta_e(lab(printed(found_HWC)), lab(expected))[can]
        else:
            far = delta_e(lab(xyz(color, found_HWC)), lab(expected))
        most = max(most, float(far.max()))
    return most


def row(source: Path, color: str, side: int, folder: Path) -> tuple[str, int]:
    """A line of the table, and what was held at most, in bytes."""
    out = folder / f"{color}.tif"
    profile = folder / "press.icc"
    profile.write_bytes(press_profile())
    words = [str(source), str(out), str(profile) if color == "press" else color]
    began = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-c", EXPORT, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, held = time.perf_counter() - began, int(shown.stdout) * 1024
    far = farthest(out, color, side)
    # Of all colours: a step of 8 bits is more of dark ones than of a chart's, and near the border
    # of what can be printed a profile's tables bend.
    allowed = COLOR_ELSEWHERE if color == "press" else 2 * COLOR_8_BITS
    if far > allowed:
        sys.exit(f"{color}: colours are off by {far:.2f}; no number")
    size = out.stat().st_size
    out.unlink()
    line = f"| {color} | {side} x {side} | {held / 1e6:.0f} | {size / 1e6:.0f} | {seconds:.0f} "
    return f"{line}| {far:.2f} |", held


def main() -> int:
    """Print what each holds, and fail where one holds too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("colors", nargs="*", default=COLORS, help="default: all")
    parser.add_argument("--side", type=int, default=SIDE, help=f"default: {SIDE}")
    parser.add_argument("--out", type=Path, help="a file for the table; default: none")
    asked = parser.parse_args()
    lines = [
        "| --color | pixels | MB held at most | MB written | seconds | Delta E at most |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    most = 0
    with tempfile.TemporaryDirectory() as place:
        source = store(Path(place) / "picture.zarr", asked.side)
        for color in asked.colors:
            line, held = row(source, color, asked.side, Path(place))
            print(line, flush=True)
            lines.append(line)
            most = max(most, held)
    if asked.out is not None:
        asked.out.write_text("\n".join(lines) + "\n")
    if most > MOST * 1e6:
        print(f"\nmore than {MOST} MB")
    return int(most > MOST * 1e6)


if __name__ == "__main__":
    sys.exit(main())
