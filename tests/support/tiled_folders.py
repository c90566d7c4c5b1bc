"""Pictures put together from the tiles of a folder, as viewers find them.

Deep Zoom by its schema (schemas.microsoft.com/deepzoom/2008), IIIF by the tiles that its info.json
lists and by OpenSeadragon's way to ask for them; every tile is read by libvips.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyvips

NAMESPACE = "{http://schemas.microsoft.com/deepzoom/2008}"


def joined(path: Path, halvings: int = 0) -> np.ndarray:
    """The picture [H, W, 3] of a folder, halved so often."""
    if path.suffix == ".dzi":
        return deep_zoom(path / "image.dzi", halvings)
    info = json.loads((path / "info.json").read_text())
    return iiif(path, info, 2**halvings)


def tile(path: Path) -> np.ndarray:
    """Pixels [H, W, 3] of one tile."""
    return pyvips.Image.new_from_buffer(path.read_bytes(), "").numpy()


def tile_row(path: Path, top: int) -> np.ndarray:
    """The row of tiles at full size that begins at a row of pixels, [rows, W, 3]."""
    if path.suffix == ".dzi":
        root = ElementTree.parse(path / "image.dzi").getroot()
        size = root.find(f"{NAMESPACE}Size")
        assert size is not None
        side, width, height = (
            int(value) for value in (root.get("TileSize", ""), *map(size.get, ("Width", "Height")))
        )
        folder = path / "image_files" / str(math.ceil(math.log2(max(width, height, 1))))
        columns = range(math.ceil(width / side))
        names = [folder / f"{each}_{top // side}.{root.get('Format')}" for each in columns]
    else:
        info = json.loads((path / "info.json").read_text())
        names = [path / name for at, _, name in iiif_tiles(info, 1) if at == top]
    return np.hstack([tile(name) for name in names])


def deep_zoom(descriptor: Path, halvings: int = 0) -> np.ndarray:
    """A level of a .dzi, whose levels are counted from one pixel up."""
    root = ElementTree.parse(descriptor).getroot()
    assert root.tag == f"{NAMESPACE}Image"
    assert root.get("Overlap") == "0"
    side, format = int(root.get("TileSize", "")), root.get("Format")
    size = root.find(f"{NAMESPACE}Size")
    assert size is not None
    whole = [int(size.get(name, "")) for name in ("Height", "Width")]
    most = math.ceil(math.log2(max(*whole, 1)))
    folder = descriptor.with_name(f"{descriptor.stem}_files")
    height, width = (math.ceil(length / 2**halvings) for length in whole)
    found = np.zeros((height, width, 3), np.uint8)
    for row in range(math.ceil(height / side)):
        for column in range(math.ceil(width / side)):
            pixels = tile(folder / str(most - halvings) / f"{column}_{row}.{format}")
            top, left = row * side, column * side
            assert found[top : top + side, left : left + side].shape == pixels.shape
            found[top : top + side, left : left + side] = pixels
    return found


def iiif(folder: Path, info: dict[str, Any], scale: int = 1) -> np.ndarray:
    """A picture by its tiles of one scale factor."""
    height, width = (math.ceil(info[name] / scale) for name in ("height", "width"))
    found = np.zeros((height, width, 3), np.uint8)
    for top, left, name in iiif_tiles(info, scale):
        pixels = tile(folder / name)
        found[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return found


def iiif_tiles(info: dict[str, Any], scale: int) -> list[tuple[int, int, str]]:
    """(top, left, place) of every tile of a scale factor, as OpenSeadragon 6 asks for them."""
    side = info["tiles"][0]["width"]
    whole_height, whole_width = info["height"], info["width"]
    height, width = (math.ceil(length / scale) for length in (whole_height, whole_width))
    if width < side and height < side:
        size = "max" if (width, height) == (whole_width, whole_height) else f"{width},{height}"
        return [(0, 0, f"full/{size}/0/default.jpg")]
    found = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            x, y = left * scale, top * scale
            w, h = min(side * scale, whole_width - x), min(side * scale, whole_height - y)
            region = f"{x},{y},{w},{h}"
            if (x, y, w, h) == (0, 0, whole_width, whole_height):
                region = "full"
            size = f"{min(side, width - left)},{min(side, height - top)}"
            if size == f"{whole_width},{whole_height}":
                size = "max"
            found.append((top, left, f"{region}/{size}/0/default.jpg"))
    return found
