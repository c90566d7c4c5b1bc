"""A clip as a folder of numbered TIFFs, `NAME.frames/000000.tif` and on, for compositing.

Each has the store's own bits (16 after a render with --bits 16), deflated with a predictor;
`frieze.json` beside them has the frame rate and what drew them.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Set
from pathlib import Path

import tifffile
from pydantic import Field

from ..codecs.output import ExportOptions, Output
from ..errors import ExportError
from ..files.atomic import check_space
from ..files.location import Location
from ..spec.units import BYTES_OF
from ..store.layout import StoreLayout
from ..store.provenance import check_clip, tiff_tags

suffixes = (".frames",)
color_spaces = ("RGB", "CMYK")
last, others = "frieze.json", re.compile(r"\d{6,}\.tif")


class Options(ExportOptions):
    """Of frames."""

    level: int = Field(default=1, ge=1, le=9, description="deflate's: 1 fast, 9 small")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="compressing threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a clip."""
    check_clip(out, layout)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store's clip as a folder of TIFFs; returns its path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, layout, colors = output.store, output.layout, output.colors
    check(output.path, layout)
    tags = tiff_tags(output.dpi, store.provenance, color=colors)
    each = _bytes(layout, colors.channels)
    with output.folder(last, is_ours) as part:
        check_space(output.target, (layout.frames or 0) * each, ExportError)
        (part / last).write_text(json.dumps(output.about, indent=1))
        frames = store.frames_in_order(wait=output.follow)
        for number, pixels_HWC in colors.strips(frames, options.workers):
            tifffile.imwrite(
                part / f"{number:06d}.tif",
                pixels_HWC,
                bigtiff=each > 2**31,
                byteorder="<",
                compression="zlib",
                compressionargs={"level": options.level},
                predictor=True,
                maxworkers=options.workers or os.cpu_count() or 1,
                **tags,
            )
    return output.path


def _bytes(layout: StoreLayout, channels: int) -> int:
    return layout.height * layout.width * channels * BYTES_OF[layout.dtype]


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export and holds nothing else."""
    return about is not None and all(map(others.fullmatch, names - {last}))
