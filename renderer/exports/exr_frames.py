"""A clip as a folder of numbered OpenEXR files, `NAME.exrs/NAME.1001.exr` and on, for compositing.

Each is what `exr` makes of a picture; `frieze.json` beside them has the frame rate and what drew
them. Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from pathlib import Path

from pydantic import Field

from ..codecs import exr_chunks, picture_rows
from ..codecs.exr_attributes import ExrOptions, attributes, check_library, light_colors
from ..codecs.output import Output
from ..errors import ExportError
from ..files.atomic import check_space
from ..files.location import Location
from ..store.layout import StoreLayout
from ..store.provenance import check_clip

suffixes = (".exrs",)
color_spaces = ("RGB",)
last, others = "frieze.json", re.compile(r".+\.\d{4,}\.exr", re.DOTALL)


class Options(ExrOptions):
    """Of EXR frames."""

    first: int = Field(default=1001, ge=0, le=10**6, description="number of the first frame")


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a clip."""
    check_clip(out, layout)
    check_library(out)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store's clip as a folder of OpenEXR files; returns its path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out, layout = output.store, output.path, output.layout
    check(out, layout)
    colors = light_colors(out, output.colors)
    told = attributes(store, output.dpi, colors)
    size = (layout.height, layout.width)
    with output.folder(last, is_ours) as part:
        check_space(output.target, _bytes(layout, options), ExportError)
        (part / last).write_text(json.dumps(output.about, indent=1))
        for number, pixels_HWC in store.frames_in_order(wait=output.follow):
            light_HWC = picture_rows.linear(pixels_HWC, colors).astype(options.dtype)
            with (part / f"{out.stem}.{options.first + number:04d}.exr").open("wb") as file:
                strips = exr_chunks.cut(light_HWC, exr_chunks.strip_rows(options.compression))
                exr_chunks.write(file, strips, size, options.compression, told)
    return out


def _bytes(layout: StoreLayout, options: Options) -> int:
    each = 2 if options.dtype == "float16" else 4
    return (layout.frames or 0) * layout.height * layout.width * layout.channels * each


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export and holds nothing else."""
    return about is not None and all(map(others.fullmatch, names - {last}))
