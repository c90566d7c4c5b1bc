"""AVIF in little memory: a grid of tiles, each encoded by itself; 8, 10 or 12 bits.

Up to 32768 pixels a side and 16384 x 16384 in all, which is what readers on libavif take; those on
libheif stop at 2 GiB, about 15000 x 15000 of 4:4:4.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import imagecodecs
import numpy as np
from pydantic import BeforeValidator, Field

from ..codecs import avif_grid, picture_rows
from ..codecs.exif import exif
from ..codecs.output import ExportOptions, Output
from ..color.profiles import SRGB
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import xmp

suffixes = (".avif",)
color_spaces = ("RGB",)

LONGEST_SIDE, MOST_PIXELS = 32768, 16384**2  # libavif's own, unless a reader asks for more

WORKERS = 2  # as many as 400 MB are enough for, at 16384 pixels a side
OF_STORE = {"uint8": 8, "uint16": 12}


def _as_word(bits: Any) -> Any:
    """A number as it is typed: one of the words."""
    return str(bits) if isinstance(bits, int) else bits


class Options(ExportOptions):
    """Of AVIF."""

    quality: int = Field(default=90, ge=1, le=100, description="libavif's: 60 for the web")
    bits: Annotated[Literal["store", "8", "10", "12"], BeforeValidator(_as_word)] = Field(
        default="store", description="of a sample; store: 8 of 8 and 12 of 16"
    )
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = Field(
        default="4:4:4", description="how many samples of colour there are: all, a half, a quarter"
    )
    speed: int = Field(default=8, ge=0, le=10, description="0 small, 10 fast")
    workers: int = Field(
        default=WORKERS, ge=1, le=1024, description="encoding threads, some 60 MB each"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: a picture, not too large."""
    picture_rows.check_sides(out, layout, LONGEST_SIDE, "AVIF", MOST_PIXELS)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as one AVIF; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, layout, carried = output.store, output.layout, output.carried
    check(output.path, layout)
    size = (layout.height, layout.width)
    bits = int(options.bits) if options.bits != "store" else OF_STORE[layout.dtype]
    code = avif_grid.SRGB if output.colors.target.name == SRGB else avif_grid.OF_PROFILE
    described = avif_grid.Described(
        bits,
        exif(store, output.dpi, carried),
        xmp(carried.xmp, store.provenance).encode(),
        output.colors.icc,
        code,
    )
    tile = avif_grid.tile_sides(size, has_alpha=picture_rows.has_alpha(layout))
    in_order = output.strips(tile[0], options.workers)
    strips = (picture_rows.of_bits(rows_HWC, bits) for _, rows_HWC in in_order)
    encode = functools.partial(_encoded, options=options, bits=bits, code=code)
    with (
        output.file() as part,
        ThreadPoolExecutor(options.workers) as pool,
        part.open("wb") as file,
    ):
        avif_grid.write(file, strips, size, encode, pool, described)
    return output.path


def _encoded(tile: np.ndarray, options: Options, bits: int, code: tuple[int, int, int]) -> bytes:
    """An AVIF of one tile, [H, W, 3] or alpha [H, W]."""
    primaries, transfer, matrix = code
    coded = imagecodecs.avif_encode(
        tile,
        options.quality,
        speed=options.speed,
        bitspersample=bits,
        pixelformat="400" if tile.ndim == 2 else options.subsampling.replace(":", ""),
        primaries=primaries,
        transfer=transfer,
        matrix=matrix,
        numthreads=1,
    )
    return bytes(coded)
